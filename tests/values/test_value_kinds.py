"""Value models by one word: built for a run's sizes, tried, and loaded by the file's kind."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tensordict import TensorDict
from torchrl.modules import ValueOperator

from rftf_torchrl import (
    ObservationSizes,
    TemporalValueModel,
    build_value_model,
    check_value_model,
    keys,
)

SIZES = ObservationSizes(image_size=None, state_dim=5)
FRAMES = TensorDict({"observation": {"state": torch.randn(2, 5)}}, [2])


@pytest.mark.parametrize(
    ("kind", "options", "kept"),
    [
        ("small", {"channels": [8, 8, 8]}, "small"),
        ("own_value:Linear", {"bias": False}, "own_value:Linear"),
    ],
)
def test_a_file_is_loaded_by_its_kind(tmp_path, kind, options, kept):
    model = build_value_model(kind, options, SIZES)
    model.save(tmp_path / "value.safetensors")
    with safe_open(tmp_path / "value.safetensors", "pt") as file:
        assert f'"kind": "{kept}"' in file.metadata()["model"]
    loaded = TemporalValueModel.load(tmp_path / "value.safetensors", kind=kept)
    weights = model.state_dict()
    assert weights.keys() == loaded.state_dict().keys()
    assert all(torch.equal(weights[name], w) for name, w in loaded.state_dict().items())
    loaded.save(tmp_path / "again.safetensors")
    TemporalValueModel.load(tmp_path / "again.safetensors", kind=kept)


def test_a_file_of_another_version_is_refused_by_name(tmp_path):
    model = build_value_model("small", {"channels": [8, 8, 8]}, SIZES)
    file = tmp_path / "value.safetensors"
    model.save(file)
    with safe_open(file, "pt") as stored:
        header = stored.metadata()
    described = json.loads(header["model"])
    described["config"]["later"] = 1
    header = {"format": header["format"], "model": json.dumps(described)}
    save_file(load_file(file), file, header)
    message = rf"^{file} describes its network in a way that this version does not know \(.*'later'"
    with pytest.raises(ValueError, match=message):
        TemporalValueModel.load(file)


@pytest.mark.parametrize("name", ["HandHeight", "hand_height"])
def test_a_scoring_model(name):
    options = {
        "model": f"own_value:{name}",
        "inputs": {"hand": ["observation", "state"]},
        "arguments": {"scale": 2.0},
    }
    model = build_value_model("score", options, SIZES)
    check_value_model("score", model, FRAMES)
    out = model(FRAMES.copy())["temporal_value"]
    torch.testing.assert_close(out, 2 * FRAMES["observation", "state"][:, 2:3])


def test_one_that_is_used_as_it_is():
    out = build_value_model("own_value:Sum", {}, SIZES)(FRAMES.copy())
    assert out["temporal_value"].shape == (2, 1)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "smal",
            {},
            "unknown kind of value model 'smal': choose from small, pretrained, score, lerobot, "
            "give your own as 'module:Name', or offer it as an entry point in the group "
            "'rftf_torchrl.value_models'. Did you mean 'small'?",
        ),
        ("own_value:NoBuild", {}, "own_value:NoBuild is no kind of value model: it lacks build."),
        (
            "own_value:NoDataclass",
            {},
            "value.kind=own_value:NoDataclass is no dataclass: let its fields be its options "
            "(value.options).",
        ),
        (
            "own_value:Linear",
            {"bais": False},
            "value.options.bais: there is no such setting, did you mean 'bias'?",
        ),
        (
            "pretrained",
            {"fusion": "sum", "grid": 0},
            "value.options.image_tower is not set; value.options.fusion=sum: choose from "
            "cross_attention, concatenation, film; value.options.grid=0: must be at least 1",
        ),
        (
            "own_value:NotTrainable",
            {},
            "value.kind=own_value:NotTrainable must build a TemporalValueModel, which is trained "
            "and saved, got TensorDictModule: wrap its network in one, or set trained = False in "
            "the class to use the model as it is.",
        ),
    ],
)
def test_broken_kinds(kind, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_value_model(kind, options, SIZES)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "Wide",
            ValueError,
            "value.kind=own_value:Wide must write 'temporal_value' or 'state_value' of shape "
            "(2, 1), one value a frame, but wrote shape (2, 2).",
        ),
        (
            "Elsewhere",
            ValueError,
            "value.kind=own_value:Elsewhere must write 'temporal_value' or 'state_value' of shape "
            "(2, 1), one value a frame, but wrote nothing.",
        ),
        (
            "Blind",
            KeyError,
            "value.kind=own_value:Blind reads 'depth', which the demonstrations do not hold; they "
            "hold ('observation', 'state').",
        ),
    ],
)
def test_models_of_another_shape(name, error, message):
    kind = f"own_value:{name}"
    model = build_value_model(kind, {}, SIZES)
    with pytest.raises(error) as caught:
        check_value_model(kind, model, FRAMES)
    assert caught.value.args[0] == message


def test_a_value_operator_is_a_value_model():
    check_value_model("mine", ValueOperator(torch.nn.Linear(5, 1), [keys.STATE]), FRAMES)
