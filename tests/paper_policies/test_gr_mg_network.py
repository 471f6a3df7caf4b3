"""GR-MG's network: its authors' outputs, its mask, and its checkpoint."""

import json
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from _tiny_vlas import GR_MG, gr_mg_checkpoint, window

from rftf_torchrl import GRMG, GRMGConfig, load_gr_mg_checkpoint
from rftf_torchrl.paper_policies.blocks.checkpoint import stored_shapes
from rftf_torchrl.paper_policies.gr_mg.checkpoint import gr_mg_sources

FROZEN = json.loads(Path(__file__).with_name("original_outputs.json").read_text(encoding="utf-8"))[
    "GR-MG"
]
CLIP_IMAGE_TOWER = 152, 87_849_216  # entries and numbers in OpenAI's ViT-B/32


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    network = GRMG(GR_MG).requires_grad_(False)
    file = tmp_path_factory.mktemp("gr_mg") / "epoch=1-step=1.ckpt"
    torch.save(gr_mg_checkpoint(network), file)
    load_gr_mg_checkpoint(network, file)
    return network


def predict(network, seen, **kwargs):
    seen = dict(seen)
    text = network.text_encoder(seen.pop("tokens"))
    return network(**seen, text=text, **kwargs)


def test_the_authors_code_gave_the_same(network):
    seen = window(2)
    found = predict(network, seen, heads=("action", "images", "progress"))
    arm = seen["arm"][:, :, None].expand(-1, -1, 5, -1) * 0.5
    style = network.action.encode_style(arm, seen["gripper"][..., None].expand(-1, -1, 5))
    found["style_mean"], found["style_log_variance"] = style
    for name, frozen in FROZEN.items():
        values = found[name].flatten()[:: frozen["every"]]
        torch.testing.assert_close(values, torch.tensor(frozen["values"]), atol=2e-5, rtol=0)


def test_the_released_sizes():
    with torch.device("meta"):
        network = GRMG(GRMGConfig())
    shapes = stored_shapes(network.state_dict(), gr_mg_sources(network))
    entries, numbers = CLIP_IMAGE_TOWER
    temperature = 1
    assert len(shapes) + entries + temperature == 838
    held = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert held + numbers + temperature == 285_748_169
    assert shapes["transformer.h.11.attn.c_attn.weight"] == (384, 1152)
    assert shapes["perceiver_resampler.layers.2.0.to_kv.weight"] == (1024, 768)
    assert shapes["text_encoder.transformer.resblocks.11.attn.in_proj_weight"] == (1536, 512)
    assert shapes["action_decoder_positional_embeddings.weight"] == (5, 128)
    assert shapes["decoder_pred.weight"] == (768, 384)


def test_leaving_queries_out_changes_nothing(network):
    every = predict(network, window(2), heads=("action", "images", "progress"))
    some = predict(network, window(2), heads=("action", "progress"))
    for name in ("arm", "gripper", "progress"):
        torch.testing.assert_close(some[name], every[name])


def test_mask_against_its_definition():
    valid = torch.tensor([[True, True, False]])
    goal, observed, queries = 2, 3, 2
    sees = GRMG._visible(None, valid, goal, observed, queries)[0]
    size = goal + 3 * (observed + queries)
    for row in range(size):
        for column in range(size):
            step, place = divmod(column - goal, observed + queries)
            there = column < goal or (bool(valid[0, step]) and place < observed)
            assert bool(sees[row, column]) == (there and column <= row)


def test_what_is_not_valid_does_not_matter(network):
    seen = window(2)
    before = predict(network, seen)
    for name in ("image", "wrist_image", "arm"):
        seen[name][1, 2] = 9.0
    after = predict(network, seen)
    torch.testing.assert_close(after["arm"][:, :2], before["arm"][:, :2])
    # Queries carry no time: at a padded place the progress is that of the last observation.
    torch.testing.assert_close(before["progress"][1, 2], before["progress"][1, 1])


def test_checkpoint_errors_name_every_key(network, tmp_path):
    payload = gr_mg_checkpoint(network)
    state = payload["state_dict"]
    del state["model.embed_ln.weight"], state["model.transformer.h.1.ln_1.bias"]
    state["model.embed_more.weight"] = torch.zeros(2)
    state["model.embed_lang.bias"] = torch.zeros(7)
    state["model.text_encoder.visual.proj"] = torch.zeros(1)
    torch.save(payload, tmp_path / "bad.ckpt")
    message = (
        f"the weights in {tmp_path / 'bad.ckpt'} are not those of this architecture:\n"
        "  - missing: transformer.h.1.ln_1.bias\n"
        "  - missing: embed_ln.weight\n"
        "  - unexpected: embed_more.weight\n"
        "  - embed_lang.bias: shape (7,), expected (32,)\n"
        "Build the policy with the sizes that the checkpoint was trained with."
    )
    before = network.embed_lang.weight.clone()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_gr_mg_checkpoint(network, tmp_path / "bad.ckpt")
    assert torch.equal(network.embed_lang.weight, before)


class Anything:
    pass


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (None, "no checkpoint at {}: download it first, see the how-to page."),
        (
            {"epoch": 1, "model_state_dict": {}},
            "{} holds no 'state_dict', it holds ['epoch', 'model_state_dict']: it is another "
            "checkpoint.",
        ),
    ],
)
def test_other_files(network, tmp_path, payload, error):
    file = tmp_path / "file.ckpt"
    if payload is not None:
        torch.save(payload, file)
    with pytest.raises((ValueError, FileNotFoundError), match=f"^{re.escape(error.format(file))}$"):
        load_gr_mg_checkpoint(network, file)


def test_code_in_a_file_is_refused(network, tmp_path):
    torch.save({**gr_mg_checkpoint(network), "hyper_parameters": Anything()}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="pass weights_only=False, which runs code from the file"):
        load_gr_mg_checkpoint(network, tmp_path / "a.ckpt")
    load_gr_mg_checkpoint(network, tmp_path / "a.ckpt", weights_only=False)


def test_only_policies_have_a_network(tmp_path):
    with pytest.raises(TypeError, match="there is no GRMG in this Linear: build the policy from"):
        load_gr_mg_checkpoint(torch.nn.Linear(1, 1), tmp_path / "a.ckpt")


def test_sizes_that_do_not_divide():
    with pytest.raises(ValueError, match=r"^heads=5 must divide hidden=384.$"):
        GRMGConfig(heads=5)
