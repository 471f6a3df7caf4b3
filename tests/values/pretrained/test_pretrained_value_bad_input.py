"""One clear error for each wrong input of a value model on pretrained towers."""

import re
import sys

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from _tower_inputs import frames
from _towers import tiny

from rftf_torchrl import (
    PretrainedEncoderConfig,
    TemporalValueModel,
    on_cached_features,
    temporal_value_model,
)


def errors(config):
    model = temporal_value_model(config(text="bert"))
    long, foreign, floats = frames(2, length=17), frames(2), frames(2)
    foreign["instruction", "tokens"][0, 0] = 900
    floats["observation", "image"] = torch.rand(2, 3, 32, 32)
    return {
        "long": (
            lambda: model(long),
            "tokens must have at most 16 positions for this text tower, got shape (2, 17): give "
            "InstructionTokens a smaller max_length.",
        ),
        "foreign": (
            lambda: model(foreign),
            "token 900 is not among the 64 of this text tower: write the tokens by "
            "InstructionTokens(tokenizer) with the tower's own tokenizer.",
        ),
        "floats": (
            lambda: model(floats),
            "image must be a uint8 image or cached features [*B, P, 32] of this model's own "
            "tower, got torch.float32 of shape (2, 3, 32, 32).",
        ),
        "stale": (
            lambda: on_cached_features(temporal_value_model(config(image_training="full"))),
            "the features of an image tower that is trained go stale: image_training is 'full', "
            "expected 'frozen'.",
        ),
        "no tower": (
            lambda: on_cached_features(TemporalValueModel(nn.Linear(1, 1), in_keys=["x"])),
            "only a value model on a pretrained image tower has features to cache, got the network "
            "Linear: build it by temporal_value_model(PretrainedEncoderConfig).",
        ),
        "grid": (
            lambda: temporal_value_model(config(grid=5)),
            "grid must be 1 to 4, the edge of this tower's patches, got 5: the patches are "
            "averaged, not made more.",
        ),
        "fusion": (
            lambda: config(fusion="addition"),
            "fusion must be one of ('cross_attention', 'concatenation', 'film'), got 'addition'.",
        ),
        "heads": (
            lambda: config(features=16, heads=3),
            "features must be a multiple of heads, got 16 and 3.",
        ),
        "no type": (
            lambda: PretrainedEncoderConfig({"hidden_size": 3}),
            "image must be a configuration of transformers with its 'model_type', got the keys "
            "['hidden_size'].",
        ),
    }


@pytest.mark.parametrize(
    "case", ["long", "foreign", "floats", "stale", "no tower", "grid", "fusion", "heads", "no type"]
)
def test_bad_input(config, case):
    call, message = errors(config)[case]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_a_checkpoint_that_lacks_weights_lists_them(tmp_path):
    model = tiny("dinov2")
    state = model.state_dict()
    gone = ["encoder.layer.1.norm1.bias", "layernorm.weight"]
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in state.items() if k not in gone})
    message = (
        f"{tmp_path} lacks weights of the dinov2 tower: {gone}. Expected a checkpoint of the same "
        "architecture."
    )
    config = PretrainedEncoderConfig.from_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        temporal_value_model(config)


def test_without_transformers_the_extra_is_named(config, monkeypatch):
    built = config()
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = "transformers is not installed: pip install 'rftf-torchrl[transformers]'."
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        temporal_value_model(built)
