"""Seer's network: its authors' outputs, its mask, and its checkpoint."""

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from _tiny_vlas import LENGTH, SEER, SMALL_SEER, seer_checkpoints, window

from rftf_torchrl import Seer, SeerConfig, load_seer_checkpoint
from rftf_torchrl.paper_policies.blocks import clip_text
from rftf_torchrl.paper_policies.blocks.checkpoint import stored_shapes
from rftf_torchrl.paper_policies.seer.checkpoint import seer_sources

FROZEN = json.loads(Path(__file__).with_name("original_outputs.json").read_text(encoding="utf-8"))[
    "Seer"
]


def unused_shapes(hidden):
    """What the authors store without using it."""
    half = hidden // 2
    linear = [(6, hidden), (2, hidden), (2 * hidden, hidden), (hidden, half), (half, half)]
    linear += [(half, 6), (half, 1)]
    return [shape for fan, out in linear for shape in ((out, fan), (out,))]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    network = Seer(SMALL_SEER).requires_grad_(False)
    load_seer_checkpoint(network, **saved(network, tmp_path_factory.mktemp("seer")))
    return network


def saved(network, folder, change=lambda state: None):
    files = {"path": folder / "1.pth", "mae": folder / "mae.pth", "clip": folder / "clip.pt"}
    payloads = seer_checkpoints(network)
    change(payloads[0]["model_state_dict"])
    for file, payload in zip(files.values(), payloads, strict=True):
        torch.save(payload, file)
    return files


def predict(network, seen, **kwargs):
    inputs = {name: seen[name] for name in ("image", "wrist_image", "arm", "gripper")}
    return network(**inputs, text=network.clip_model(seen["tokens"]), **kwargs)


@pytest.mark.slow
def test_the_authors_code_gave_the_same(tmp_path):
    network = Seer(SEER).requires_grad_(False)
    load_seer_checkpoint(network, **saved(network, tmp_path))
    out = predict(network, window(2), images=True)
    found = {"arm": out.arm, "gripper": out.gripper.sigmoid(), "images": out.images}
    for name, frozen in FROZEN.items():
        values = found[name].flatten()[:: frozen["every"]]
        torch.testing.assert_close(values, torch.tensor(frozen["values"]), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "saved_numbers"),
    [(SeerConfig(), 67_689_614), (SeerConfig.large(), 357_767_950)],
    ids=["base", "large"],
)
def test_the_released_sizes(config, saved_numbers):
    with torch.device("meta"):
        network = Seer(config)
    shapes = stored_shapes(network.state_dict(), seer_sources(network))
    every = [*shapes.values(), *unused_shapes(config.hidden)]
    assert len(every) == 400
    assert sum(torch.Size(shape).numel() for shape in every) == saved_numbers
    assert len(network.vision_encoder.state_dict()) == 150
    assert sum(p.numel() for p in network.vision_encoder.parameters()) == 85_798_656


def test_mask_against_its_definition():
    seen, foresight, actions, length = 3, 2, 2, 3
    sees = Seer._visible(length, seen, foresight, actions, torch.device("cpu"))
    step_size = seen + foresight + actions
    for row in range(length * step_size):
        for column in range(length * step_size):
            (now, me), (then, it) = divmod(row, step_size), divmod(column, step_size)
            own_pictures = now == then and me >= seen + foresight and seen <= it < seen + foresight
            assert bool(sees[row, column]) == ((then <= now and it < seen) or own_pictures)


def test_later_observations_do_not_leak(network):
    seen = window(2, 32)
    before = predict(network, seen)
    for name in ("image", "wrist_image", "arm"):
        seen[name][:, 2] = 9.0
    torch.testing.assert_close(predict(network, seen).arm[:, :2], before.arm[:, :2])


def test_a_longer_pretraining_window_is_cut(network, tmp_path):
    position = "module.transformer_backbone_position_embedding"

    def lengthen(state):
        state[position] = torch.cat((state[position], torch.ones(1, 4, 1, SEER.hidden)), dim=1)
        state["module.action_projector.bias"] = torch.zeros(SEER.hidden)

    other = Seer(SMALL_SEER)
    load_seer_checkpoint(other, **saved(other, tmp_path, lengthen))
    assert other.transformer_backbone_position_embedding.shape[1] == LENGTH
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in other.state_dict().items())


def test_clip_from_a_folder_of_transformers(network, tmp_path):
    network.clip_model.model.save_pretrained(tmp_path / "clip")
    other = Seer(SMALL_SEER)
    files = saved(other, tmp_path)
    load_seer_checkpoint(other, **{**files, "clip": tmp_path / "clip"})
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in other.state_dict().items())


def test_clip_from_a_folder_with_both_towers(network, tmp_path):
    """As ``openai/clip-vit-base-patch32`` is laid out."""
    clip = pytest.importorskip("transformers").models.clip
    text = network.clip_model.model
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "intermediate_size": 16, "image_size": 32, "patch_size": 16}
    whole = clip.CLIPModel(
        clip.CLIPConfig(
            text_config=text.config.to_dict(),
            vision_config=vision,
            projection_dim=SMALL_SEER.text.dim,
        )
    )
    whole.text_model.load_state_dict(text.text_model.state_dict())
    whole.text_projection.load_state_dict(text.text_projection.state_dict())
    whole.save_pretrained(tmp_path / "clip")
    other = Seer(SMALL_SEER)
    files = saved(other, tmp_path)
    load_seer_checkpoint(other, **{**files, "clip": tmp_path / "clip"})
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in other.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_clip_from_openai_archive(network, tmp_path, monkeypatch):
    files = saved(network, tmp_path)
    archive = torch.nn.Module()
    for name, value in torch.load(files["clip"]).items():
        *path, last = name.split(".")
        module = archive
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_buffer(last, value)
    archive.register_buffer("context_length", torch.tensor(8))
    torch.jit.script(archive).save(str(tmp_path / "archive.pt"))
    other, given = Seer(SMALL_SEER), {**files, "clip": tmp_path / "archive.pt"}
    with pytest.raises(ValueError, match=r"archive\.pt is a TorchScript archive, which runs code"):
        load_seer_checkpoint(other, **given)
    digest = sha256((tmp_path / "archive.pt").read_bytes()).hexdigest()
    monkeypatch.setattr(clip_text, "OPENAI_SHA256", digest)
    load_seer_checkpoint(other, **given)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in other.state_dict().items())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_an_interrupted_download_is_named(network, tmp_path, share):
    files = saved(network, tmp_path)
    content = files["path"].read_bytes()
    files["path"].write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"cannot be read as a checkpoint .*: download it again"):
        load_seer_checkpoint(Seer(SMALL_SEER), **files)


def test_checkpoint_errors_name_every_key(network, tmp_path):
    def spoil(state):
        del state["module.mask_token"], state["module.arm_action_decoder.0.bias"]
        state["module.speed.weight"] = torch.zeros(1)

    files = saved(network, tmp_path, spoil)
    message = (
        f"the weights in {files['path']} are not those of this architecture:\n"
        "  - missing: mask_token\n"
        "  - missing: arm_action_decoder.0.bias\n"
        "  - unexpected: speed.weight\n"
        "Build the policy with the sizes that the checkpoint was trained with."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_seer_checkpoint(network, **files)


def test_an_incomplete_clip_is_refused(network, tmp_path):
    files = saved(network, tmp_path)
    text = torch.load(files["clip"])
    del text["ln_final.bias"]
    torch.save(text, files["clip"])
    with pytest.raises(ValueError, match=re.escape(":\n  - missing: ln_final.bias\nBuild")):
        load_seer_checkpoint(network, **files)


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"^image_heads=7 must divide hidden=384.$"):
        SeerConfig(image_heads=7)
    with pytest.raises(ValueError, match=r"^foresight must be a square number, got 8.$"):
        SeerConfig(foresight=8)
