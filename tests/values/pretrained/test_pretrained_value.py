"""Value models on pretrained towers, with tiny checkpoints of the real classes."""

import json
import sys

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("transformers")
pytest.importorskip("peft")

from _tower_inputs import IMAGE_TOWERS, frames
from _towers import tokenizer

from rftf_torchrl import (
    EncoderConfig,
    InstructionTokens,
    PretrainedEncoderConfig,
    TemporalValueModel,
    temporal_value_model,
)


@pytest.mark.parametrize("fusion", ["cross_attention", "concatenation", "film"])
@pytest.mark.parametrize("text", [None, "clip"])
def test_batched_equals_one_by_one(config, fusion, text):
    model = temporal_value_model(config(text=text, fusion=fusion)).eval()
    data = frames(2, 3)
    batched = model(data.copy())["temporal_value"]
    assert batched.shape == (2, 3, 1)
    for row in range(2):
        for column in range(3):
            one = data[row, column]
            length = int(one["instruction", "mask"].sum())
            one = TensorDict(
                {
                    "observation": one["observation"],
                    "instruction": one["instruction"].apply(lambda t, n=length: t[:n]),
                }
            )
            torch.testing.assert_close(model(one)["temporal_value"], batched[row, column])


@pytest.mark.parametrize("fusion", ["cross_attention", "concatenation", "film"])
def test_the_score_depends_on_picture_and_words(config, fusion):
    model = temporal_value_model(config(text="bert", fusion=fusion)).eval()
    data = frames(2)
    picture, words = data.clone(), data.clone()
    picture["observation", "image"] = 255 - data["observation", "image"]
    words["instruction", "tokens"] = (data["instruction", "tokens"] + 7) % 60 + 3
    assert (model.raw(data) - model.raw(picture)).abs().min() > 1e-5
    assert (model.raw(data) - model.raw(words)).abs().min() > 1e-5


@pytest.mark.parametrize("image", IMAGE_TOWERS)
@pytest.mark.parametrize("training", ["frozen", "lora", "full"])
def test_gradients_reach_what_is_trainable_and_nothing_else(config, image, training):
    text = {"siglip": "siglip", "clip": "clip"}.get(image, "bert")
    model = temporal_value_model(
        config(image, text, image_training=training, text_training=training, lora_rank=2)
    )
    model.train()
    assert model.network.image.tower.training == (training != "frozen")
    model.raw(frames(3)).square().sum().backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    assert trained == reached
    towers = {n for n in trained if n.startswith(("network.image", "network.text"))}
    if training == "frozen":
        assert not towers
    elif training == "lora":
        assert towers
        assert all(".lora_" in n for n in towers)
    else:
        assert len(towers) > 50
        assert not any(".lora_" in n for n in towers)


@pytest.mark.parametrize("training", ["frozen", "lora"])
def test_save_and_load_need_no_checkpoint(config, tmp_path, training, monkeypatch):
    model = temporal_value_model(config("dinov2", "bert", image_training=training, grid=2)).eval()
    model.calibration.fit(torch.zeros(1), torch.full((1,), 2.0), mode="global")
    model.save(tmp_path / "value.safetensors")
    monkeypatch.setattr(
        "transformers.PreTrainedModel.from_pretrained", lambda *a, **k: pytest.fail("a download")
    )
    loaded = TemporalValueModel.load(tmp_path / "value.safetensors").eval()
    data = frames(4)
    assert torch.equal(loaded(data.copy())["temporal_value"], model(data.copy())["temporal_value"])
    assert loaded.config == model.config
    assert isinstance(loaded.config, PretrainedEncoderConfig)


def test_files_of_small_models_still_load_without_a_kind(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    small = EncoderConfig(image_size=None, state_dim=3, features=8)
    path = tmp_path / "value.safetensors"
    temporal_value_model(small).save(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["model"])
    assert header.pop("kind") == "small"
    for digest in ("header_sha256", "data_sha256"):  # such files had none
        del metadata[digest]
    save_file(tensors, path, {**metadata, "model": json.dumps(header)})
    assert TemporalValueModel.load(path).config == small


def test_own_tokenizer_through_instruction_tokens(config):
    keys = {"tokens_key": ("bert", "tokens"), "mask_key": ("bert", "mask")}
    transform = InstructionTokens(tokenizer(), max_length=12, **keys)
    data = frames(2).exclude("instruction")
    data["language_instruction"] = ["open window", "close window"]
    model = temporal_value_model(
        config(text="bert"), in_keys=[("observation", "image"), *keys.values()]
    )
    assert model.tokens_key == ("bert", "tokens")
    assert model(transform(data))["temporal_value"].shape == (2, 1)


@pytest.mark.slow
def test_importing_the_modules_imports_no_transformers():
    import subprocess

    code = "import sys, rftf_torchrl as r; r.load_policy; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("training", ["frozen", "lora"])
def test_bf16_scores_are_float32_and_near(config, training):
    model = temporal_value_model(config("clip", "bert", image_training=training)).eval()
    data = frames(4)
    exact = model.raw(data)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.raw(data)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.05
