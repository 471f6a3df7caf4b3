import re

import pytest
import torch
from safetensors.torch import save_file
from tensordict import NonTensorStack, TensorDict
from torch import nn

from rftf_torchrl import (
    EncoderConfig,
    TemporalValueModel,
    keys,
    temporal_value_model,
    values_of_states,
)

CONFIG = EncoderConfig(
    image_size=16, state_dim=5, channels=(4, 4, 4), text_dim=8, image_dim=16, features=16
)


def frames(*batch: int) -> TensorDict:
    return TensorDict(
        {
            "observation": {
                "image": torch.randint(0, 256, (*batch, 3, 16, 16), dtype=torch.uint8),
                "state": torch.randn(*batch, 5),
            },
            "instruction": {
                "tokens": torch.randint(1, 4, (*batch, 1)).expand(*batch, 4),
                "mask": torch.ones(*batch, 4, dtype=torch.bool),
            },
        },
        batch,
    )


def progress_model() -> TemporalValueModel:
    model = TemporalValueModel(nn.Linear(1, 1), in_keys=["progress"], tokens_key="tokens")
    with torch.no_grad():
        model.network.weight.fill_(4.0)
        model.network.bias.fill_(7.0)
    return model


def progress(*values: float) -> TensorDict:
    count = len(values)
    return TensorDict(
        {
            "progress": torch.tensor(values)[:, None],
            "tokens": (torch.arange(count) % 2)[:, None],
            "language_instruction": NonTensorStack(*(["push", "pull"] * count)[:count]),
        },
        [count],
    )


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_shape_and_keys(batch):
    model = temporal_value_model(CONFIG)
    assert model(frames(*batch))["temporal_value"].shape == (*batch, 1)
    renamed = temporal_value_model(CONFIG, in_keys=["i", "s", "t", "m"], out_key="v")
    data = frames(*batch)
    flat = TensorDict(
        {
            "i": data["observation", "image"],
            "s": data["observation", "state"],
            "t": data["instruction", "tokens"],
            "m": data["instruction", "mask"],
        },
        batch,
    )
    assert renamed(flat)["v"].shape == (*batch, 1)
    assert renamed.tokens_key == "t"


def test_an_untrained_model_writes_its_raw_score():
    model, data = temporal_value_model(CONFIG), frames(3)
    assert torch.equal(model(data)["temporal_value"], model.raw(data))


@pytest.mark.parametrize("mode", ["instruction", "global"])
def test_calibrated_demonstrations_run_from_zero_to_one(mode):
    model = progress_model()
    first, last = progress(0.0, 1.0, 0.2, 1.2), progress(5.0, 8.0, 5.2, 8.2)
    model.calibrate(first, last, mode, minibatch=3)
    torch.testing.assert_close(model(first)["temporal_value"].mean(), torch.tensor(0.0))
    torch.testing.assert_close(model(last)["temporal_value"].mean(), torch.tensor(1.0))
    assert model.calibration.per_instruction == (mode == "instruction")


def test_a_network_without_words_gets_the_tokens_of_its_calibration():
    """values_of_states hands over what in_keys names, and the calibration reads the words."""
    model = TemporalValueModel(nn.Linear(5, 1), in_keys=[keys.STATE])
    assert model.in_keys == [keys.STATE]
    data = frames(4)
    first, last = data[:2], data[2:]
    last["observation", "state"] = first["observation", "state"] + model.network.weight
    last["instruction"] = first["instruction"].clone()
    model.calibrate(first, last)
    assert model.in_keys == [keys.STATE, keys.TOKENS]
    steps = first.set("next", last)
    values = values_of_states(model, steps)
    for found, states in zip(values, (first, last), strict=True):
        torch.testing.assert_close(found, model(states.copy())["temporal_value"])


def test_calibration_names_the_instruction_that_does_not_rise():
    message = (
        "cannot calibrate: for the instruction 'pull' the last frames score -4 above the first "
        "ones on average, expected more than 0. Train the value model longer, or check that the "
        "frames are in time order and come from successes."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        progress_model().calibrate(progress(0.0, 1.0), progress(5.0, 0.0))


def test_save_and_load(tmp_path):
    model, data = temporal_value_model(CONFIG), frames(8)
    model.calibration.fit(torch.zeros(1), torch.ones(1), mode="global")
    tokens = data["instruction", "tokens"]
    model.calibration.fit(torch.zeros(8), torch.arange(1.0, 9.0), tokens, tokens)
    model.network.encoder.set_state_statistics(torch.ones(5), torch.full((5,), 2.0))
    path = tmp_path / "value.safetensors"
    model.save(path)
    loaded = TemporalValueModel.load(path)
    expected = model(data.copy())["temporal_value"]
    assert torch.equal(loaded(data.copy())["temporal_value"], expected)
    assert loaded.config == CONFIG
    assert loaded.in_keys == model.in_keys
    assert [file.name for file in tmp_path.iterdir()] == ["value.safetensors"]


def test_save_replaces_and_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "value.safetensors"
    model, other = temporal_value_model(CONFIG), temporal_value_model(CONFIG)
    model.save(path)
    other.save(path)
    data = frames(3)
    assert torch.equal(TemporalValueModel.load(path).raw(data), other.raw(data))

    def broken(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", broken)
    message = f"Cannot write {path}: No space left on device. Make room on the disk."
    with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
        model.save(path)
    assert torch.equal(TemporalValueModel.load(path).raw(data), other.raw(data))
    assert [file.name for file in tmp_path.iterdir()] == ["value.safetensors"]


def test_own_network_and_nested_keys(tmp_path):
    model = TemporalValueModel(
        nn.Linear(3, 1),
        in_keys=[("robot", "x")],
        tokens_key=("robot", "tokens"),
        out_key=("a", "v"),
    )
    model.save(tmp_path / "value.safetensors")
    loaded = TemporalValueModel.load(tmp_path / "value.safetensors", nn.Linear(3, 1))
    data = TensorDict({"robot": {"x": torch.randn(2, 3)}}, [2])
    assert torch.equal(loaded(data.copy())["a", "v"], model(data.copy())["a", "v"])


def test_the_calibrated_value_is_differentiable():
    model = progress_model()
    model.calibrate(progress(0.0, 1.0), progress(5.0, 8.0))
    model(progress(1.0, 2.0))["temporal_value"].sum().backward()
    assert model.network.weight.grad.abs() > 0


def test_loading_another_architecture_lists_the_differences(tmp_path):
    path = tmp_path / "value.safetensors"
    TemporalValueModel(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), in_keys=["x"]).save(path)
    network = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 1))
    message = (
        f"the weights in {path} are not those of the value model:\n"
        "  - missing: network.2.weight\n"
        "  - missing: network.2.bias\n"
        "  - unexpected: network.1.bias\n"
        "  - unexpected: network.1.weight\n"
        "  - network.0.weight: shape (2, 3), expected (2, 4)\n"
        "Pass the network that was saved, or none to build it from the file."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TemporalValueModel.load(path, network)


def test_files_that_are_no_value_models(tmp_path):
    path = tmp_path / "value.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    message = (
        f"{path} is not a value model: expected format 'rftf_torchrl.TemporalValueModel.1', got "
        "None."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TemporalValueModel.load(path)
    temporal_value_model(CONFIG).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a complete safetensors file: ")):
        TemporalValueModel.load(path)
    TemporalValueModel(nn.Linear(3, 1), in_keys=["x"]).save(path)
    message = f"{path} holds no config: pass the network it was saved from."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TemporalValueModel.load(path)


@pytest.mark.parametrize("key", ["action", ("vla_action", "chunk")])
def test_it_refuses_to_read_an_action(key):
    message = (
        f"a value model must not read an action, got in_key {key!r}: it learns from frames and "
        "instructions alone."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TemporalValueModel(nn.Linear(3, 1), in_keys=["x", key])


def test_input_and_output_errors():
    model = TemporalValueModel(nn.Linear(3, 2), in_keys=["x"])
    message = "the network must return one score each, shape (4, 1), got (4, 2)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model(TensorDict({"x": torch.zeros(4, 3)}, [4]))
    with pytest.raises(KeyError) as caught:
        model(TensorDict({}, [4]))
    assert caught.value.args == (
        "the value model needs 'x', which the data do not hold: add it, or build the model with "
        "other in_keys.",
    )
