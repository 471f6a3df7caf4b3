"""The authors' own code gives the same outputs, where somebody has put it beside this repository.

``RFTF_ORIGINALS`` names a folder with clones of github.com/bytedance/GR-MG (as ``GR-MG``), of
github.com/OpenRobotLab/Seer (as ``Seer``) and of github.com/openai/CLIP (as ``CLIP``), in a Python
in which they can be imported beside this package. ``pytest -m parity -s`` prints the differences.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from _tiny_vlas import GR_MG, LENGTH, SEER, formula_weights, window

from rftf_torchrl import GRMG, Seer, load_gr_mg_checkpoint, load_seer_checkpoint, tool_to_world
from rftf_torchrl.calvin.tasks import TASKS
from rftf_torchrl.paper_policies.blocks.clip_text import ClipTextConfig
from rftf_torchrl.paper_policies.blocks.clip_tokens import ClipTokens, tokenizer_files
from rftf_torchrl.paper_policies.gr_mg.actor import relative_to_first

ORIGINALS = os.environ.get("RFTF_ORIGINALS")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        ORIGINALS is None,
        reason="RFTF_ORIGINALS does not name a folder with clones of GR-MG, Seer and CLIP",
    ),
]

TOLERANCE = 2e-5


@pytest.fixture
def originals(monkeypatch):
    for name in ("CLIP", "GR-MG", "Seer"):
        monkeypatch.syspath_prepend(str(Path(ORIGINALS, name)))
    for name in [name for name in sys.modules if name.split(".")[0] in ("policy", "models")]:
        monkeypatch.delitem(sys.modules, name)


def original_clip(config):
    from clip.model import CLIP

    return CLIP(
        embed_dim=config.dim,
        image_resolution=32,
        vision_layers=1,
        vision_width=64,
        vision_patch_size=16,
        context_length=config.context,
        vocab_size=config.vocab_size,
        transformer_width=config.width,
        transformer_heads=config.heads,
        transformer_layers=config.layers,
    )


def fill(module):
    """Give every entry a value by the formula; it is what the checkpoint will hold."""
    own = module.state_dict()
    fixed = ("decoder_pos_embed", "attention_mask", "image_decoder_position_embedding")
    shapes = {n: tuple(v.shape) for n, v in own.items() if not n.endswith(fixed)}
    with torch.no_grad():
        for name, value in formula_weights(shapes).items():
            own[name].copy_(value)


def compare(name, ours, theirs):
    for key in ours:
        assert ours[key].shape == theirs[key].shape, key
    different = {key: float((ours[key] - theirs[key]).abs().max()) for key in ours}
    print(f"\n{name}: largest difference {max(different.values()):.1e}, of which {different}")
    assert max(different.values()) < TOLERANCE


def original_gr_mg(config):
    import clip
    import policy.model.vision_transformer as vits
    from policy.model.model import GR_MG as Original

    image = vits.VisionTransformer(
        patch_size=16,
        embed_dim=config.image.dim,
        depth=config.image.depth,
        num_heads=config.image.heads,
        mlp_ratio=4,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    model = Original(
        state_dim=7,
        act_dim=7,
        act_len=config.act_len,
        act_latent_dim=config.style_dim,
        act_encoder_dim=config.act_dim,
        act_decoder_dim=config.act_dim,
        progress_decoder_dim=config.progress_dim,
        hidden_size=config.hidden,
        model_mae=image,
        clip_model=original_clip(config.text),
        img_feat_dim=config.image.dim,
        lang_feat_dim=config.text.dim,
        patch_feat_dim=config.image.dim,
        resampler_params={
            "depth": config.resampler_depth,
            "dim_head": config.resampler_head_dim,
            "heads": config.resampler_heads,
            "num_latents": config.resampler_latents,
            "num_media_embeds": 1,
        },
        max_length=config.history,
        training_target=["act_pred", "fwd_pred", "fwd_pred_hand", "progress_pred"],
        use_hand_rgb=True,
        use_state=True,
        n_layer=config.layers,
        n_head=config.heads,
        n_inner=4 * config.hidden,
        activation_function="relu",
        n_positions=1024,
    )
    assert clip.tokenize is model.text_tokenizer
    model.text_tokenizer = torch.stack
    return model.eval()


@torch.no_grad()
def test_gr_mg(originals, tmp_path):
    theirs = original_gr_mg(GR_MG)
    fill(theirs)
    file = tmp_path / "epoch=1-step=1.ckpt"
    state = {f"model.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, file)
    ours = GRMG(GR_MG)
    load_gr_mg_checkpoint(ours, file)

    seen = window(2)
    action = {"arm": seen["arm"][:, :, None].expand(-1, -1, 5, -1) * 0.5}
    action["gripper"] = seen["gripper"][..., None].expand(-1, -1, 5)
    expected = theirs(
        {
            "rgb": seen["image"],
            "hand_rgb": seen["wrist_image"],
            "goal_rgb": seen["goal_image"],
            "arm_state": seen["arm"],
            "gripper_state": nn.functional.one_hot(seen["gripper"], 2).float(),
            "attention_mask": seen["valid"].long(),
            "text": [list(seen["tokens"])],
            "progress": torch.zeros(2, LENGTH),
            "arm_action": action["arm"],
            "gripper_action": action["gripper"],
        },
        is_training=False,
    )
    text = ours.text_encoder(seen.pop("tokens"))
    every = ("action", "images", "progress")
    found = ours(**seen, text=text, heads=every)
    mean, log_variance = ours.action.encode_style(action["arm"], action["gripper"])
    mine = {
        **found,
        "style_mean": mean.flatten(0, 1),
        "style_log_variance": log_variance.flatten(0, 1),
    }
    compare(
        "GR-MG",
        mine,
        {
            "arm": expected["arm_action_preds"],
            "gripper": expected["gripper_action_preds"].squeeze(-1),
            "progress": expected["progress_preds"],
            "image": expected["obs_preds"],
            "wrist_image": expected["obs_hand_preds"],
            "style_mean": expected["action_mu_preds"],
            "style_log_variance": expected["action_logvar_preds"],
        },
    )


def original_seer(config, folder, monkeypatch):
    import clip
    from models import seer_model

    mae = seer_model.MaskedAutoencoderViT
    depth = {"depth": config.image.depth, "decoder_depth": 1}
    monkeypatch.setattr(seer_model, "MaskedAutoencoderViT", lambda **k: mae(**{**k, **depth}))
    text = original_clip(config.text)
    monkeypatch.setattr(clip, "load", lambda name, device: (text, None))
    torch.save({"model": {}}, folder / "none.pth")
    model = seer_model.SeerAgent(
        finetune_type="calvin",
        clip_device="cpu",
        vit_checkpoint_path=folder / "none.pth",
        sequence_length=config.history,
        num_resampler_query=config.resampler_latents,
        num_obs_token_per_image=config.foresight,
        obs_pred=True,
        action_pred_steps=config.act_len,
        transformer_layers=config.layers,
        hidden_dim=config.hidden,
        transformer_heads=config.heads,
        phase="evaluate",
    )
    for name, value in model.named_parameters():
        frozen = name.startswith(("vision_encoder.", "clip_model."))
        value.requires_grad_(value.requires_grad and not frozen)
    model._init_model_type()
    return model.eval()


@torch.no_grad()
def test_seer(originals, tmp_path, monkeypatch):
    theirs = original_seer(SEER, tmp_path, monkeypatch)
    fill(theirs)
    state = {f"module.{n}": v.data for n, v in theirs.named_parameters() if v.requires_grad}
    torch.save({"epoch": 1, "model_state_dict": state}, tmp_path / "1.pth")
    torch.save({"model": theirs.vision_encoder.state_dict()}, tmp_path / "mae.pth")
    torch.save(theirs.clip_model.state_dict(), tmp_path / "clip.pt")
    ours = Seer(SEER)
    load_seer_checkpoint(
        ours, tmp_path / "1.pth", mae=tmp_path / "mae.pth", clip=tmp_path / "clip.pt"
    )

    seen = window(2)
    arm, gripper, images, *_ = theirs(
        image_primary=seen["image"],
        image_wrist=seen["wrist_image"],
        state=torch.cat((seen["arm"], 2.0 * seen["gripper"][..., None] - 1), dim=-1),
        text_token=seen["tokens"][:, None].expand(-1, LENGTH, -1),
    )
    text = ours.clip_model(seen["tokens"])
    inputs = {name: seen[name] for name in ("image", "wrist_image", "arm", "gripper")}
    found = ours(**inputs, text=text, images=True)
    compare(
        "Seer",
        {
            "arm": found.arm,
            "gripper": found.gripper.sigmoid(),
            "images": found.images.flatten(0, 1),
        },
        {"arm": arm, "gripper": gripper.squeeze(-1), "images": images},
    )


def test_sentences(originals, tmp_path):
    """OpenAI's tokenizer and that of ``transformers`` under our transform."""
    import clip
    from clip.simple_tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer()
    (tmp_path / "vocab.json").write_text(json.dumps(theirs.encoder), encoding="utf-8")
    merges = [" ".join(pair) for pair in theirs.bpe_ranks]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    ours = ClipTokens(ClipTextConfig(), tokenizer_files(str(tmp_path)))
    sentences = [task.instruction for task in TASKS.values()]
    sentences += ["Use the switch to turn off the light bulb.", "don't  STOP, it's 3.5cm away!"]
    for sentence in sentences:
        assert torch.equal(ours.encode(sentence), clip.tokenize([sentence])[0].long()), sentence


def test_gr_mg_actions_and_states(originals, monkeypatch):
    """Their Euler angles, in the formulas of their ``step`` and ``compute_rel_state``."""
    monkeypatch.syspath_prepend(str(Path(ORIGINALS, "GR-MG", "evaluate", "utils")))
    monkeypatch.delitem(sys.modules, "utils", raising=False)
    from utils import euler2rotm, rotm2euler

    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        poses = 2 * torch.rand(LENGTH, 6, generator=generator, dtype=torch.float64) - 1
        poses[:, 3:] *= torch.tensor([3.1, 1.5, 3.1])
        action = 2 * torch.rand(7, generator=generator, dtype=torch.float64) - 1
        rotation = euler2rotm(poses[-1, 3:].numpy())
        turned = rotation @ euler2rotm(action[3:6].numpy() / 20)
        expected = np.concatenate(
            (
                rotation @ action[:3].numpy(),
                (rotm2euler(turned) - poses[-1, 3:].numpy()) * 20,
                action[6:].numpy(),
            )
        )
        found = tool_to_world(action[None], poses[-1, 3:], wrap=False)[0]
        torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-6, rtol=1e-6)
        first = euler2rotm(poses[0, 3:].numpy())
        moved = first.T @ (poses[-1, :3] - poses[0, :3]).numpy()
        relative = np.concatenate((moved, rotm2euler(first.T @ rotation)))
        found = relative_to_first(poses[None])[0, -1]
        torch.testing.assert_close(found, torch.from_numpy(relative), atol=1e-6, rtol=1e-6)
