"""The value model as LeRobot's reward model: on LeRobot itself where it is, else on stand-ins."""

import re
import sys
from importlib import import_module

import pytest
import torch
from _lerobot_rewards import install_stand_ins, lerobot_has_rewards
from tensordict import TensorDict
from torch import nn

from rftf_torchrl import (
    EncoderConfig,
    HashTokenizer,
    ObservationSizes,
    TemporalValueModel,
    build_value_model,
    keys,
    temporal_value_model,
)

PLUGIN = "rftf_torchrl.values.lerobot_plugin.reward_model"
IMAGE = "observation.images.front"


@pytest.fixture
def plugin(monkeypatch):
    if lerobot_has_rewards():
        yield import_module(PLUGIN)
        return
    install_stand_ins(monkeypatch)
    yield import_module(PLUGIN)
    del sys.modules[PLUGIN]


@pytest.fixture
def value_file(tmp_path):
    """A file of a value model that is calibrated for one of two instructions."""
    torch.manual_seed(0)
    model = temporal_value_model(
        EncoderConfig(image_size=16, channels=(4, 4, 4), text_dim=4, image_dim=8, features=8)
    )
    tokens, _ = HashTokenizer()(["push"])
    model.calibration.fit(torch.zeros(1), torch.full((1,), 0.5), tokens, tokens, mode="instruction")
    trained = {"data.path": "videos", "data.image_size": 16, "data.max_words": 16}
    model.save(tmp_path / "value.safetensors", made_by=trained)
    return tmp_path / "value.safetensors"


def pictures(count, size=16):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def rewards(plugin, path, batch, **settings):
    config = plugin.RFTFConfig(value_path=str(path), image_key=IMAGE, device="cpu", **settings)
    return plugin.RFTFRewardModel(config).compute_reward(batch)


def test_the_reward_is_the_value(plugin, value_file):
    image, tasks = pictures(3), ["push", "pull it", "push"]
    tokens, mask = HashTokenizer()(tasks)
    instruction = {"tokens": tokens, "mask": mask}
    data = TensorDict({"observation": {"image": image}, "instruction": instruction}, [3])
    with torch.no_grad():
        expected = TemporalValueModel.load(value_file).eval()(data)["temporal_value"].flatten()
    found = rewards(plugin, value_file, {IMAGE: image.float() / 255, "task": tasks})
    assert found.shape == (3,)
    assert torch.equal(found, expected)
    same = rewards(plugin, value_file, {IMAGE: image, "task": "push"})
    assert torch.equal(same[[0, 2]], expected[[0, 2]])


def test_pictures_are_resized(plugin, value_file):
    grey = torch.full((2, 3, 20, 24), 51, dtype=torch.uint8)
    wide = rewards(plugin, value_file, {IMAGE: grey / 255, "task": "push"})
    same = rewards(plugin, value_file, {IMAGE: grey[..., :16, :16], "task": "push"})
    torch.testing.assert_close(wide, same)


def test_images_get_the_size_of_training_where_the_network_does_not_say(plugin, value_file):
    config = plugin.RFTFConfig(value_path=str(value_file), image_key=IMAGE, device="cpu")
    model = plugin.RFTFRewardModel(config)
    batch = {IMAGE: pictures(2, 20), "task": "push"}
    expected = model.compute_reward(batch)
    model.value.config = None  # as a pretrained tower's, which takes any size
    assert torch.equal(model.compute_reward(batch), expected)


def test_a_folder_and_lerobots_own_loading(plugin, value_file, tmp_path):
    config = plugin.RFTFConfig(value_path=str(value_file), image_key=IMAGE, device="cpu")
    model = plugin.RFTFRewardModel(config)
    model.save_pretrained(tmp_path / "reward")
    assert sorted(file.name for file in (tmp_path / "reward").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    value_file.unlink()
    loaded = plugin.RFTFRewardModel.from_pretrained(tmp_path / "reward", revision=None)
    assert loaded.config.image_key == IMAGE
    assert (loaded.value.image_size, loaded.value.max_words) == (16, 16)
    assert loaded.value.made_by == model.value.made_by
    assert (loaded.config.type, loaded.name) == ("rftf", "rftf")
    before, _ = plugin.make_rftf_pre_post_processors(loaded.config, dataset_stats={})
    batch = before({IMAGE: pictures(2) / 255, "task": ["push", "push"]})
    loaded.reset()
    assert torch.equal(loaded.compute_reward(batch), model.compute_reward(batch))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_state_and_a_kind_of_ones_own(plugin, tmp_path):
    model = build_value_model("own_value:Linear", {}, ObservationSizes(state_dim=5))
    model.save(tmp_path / "value.safetensors")
    config = plugin.RFTFConfig(value_path=str(tmp_path / "value.safetensors"), device="cpu")
    reward = plugin.RFTFRewardModel(config, value_kind="own_value:Linear")
    state = torch.randn(2, 5)
    with torch.no_grad():
        expected = model.network(state).flatten()
    assert torch.equal(reward.compute_reward({"observation.state": state.double()}), expected)
    reward.save_pretrained(tmp_path / "reward")
    with pytest.raises(ValueError, match="names the kind 'own_value:Linear'"):
        plugin.RFTFRewardModel.from_pretrained(tmp_path / "reward")
    again = plugin.RFTFRewardModel.from_pretrained(
        tmp_path / "reward", value_kind="own_value:Linear"
    )
    assert torch.equal(again.compute_reward({"observation.state": state}), expected)


BAD = [
    (
        {"task": "push"},
        KeyError,
        f"the batch has no '{IMAGE}', which the value model reads; it has 'task'. "
        "RFTFConfig.image_key names another entry.",
    ),
    (
        {IMAGE: torch.zeros(2, 3, 16, 16)},
        KeyError,
        f"the batch has no 'task', which the value model reads; it has '{IMAGE}'. "
        "RFTFConfig.task_key names another entry.",
    ),
    (
        {IMAGE: torch.zeros(2, 4, 3, 16, 16), "task": "push"},
        ValueError,
        f"'{IMAGE}' has shape (2, 4, 3, 16, 16); expected one colour image a frame, [B, 3, h, w].",
    ),
    (
        {IMAGE: torch.full((2, 3, 16, 16), -1.5), "task": "push"},
        ValueError,
        f"'{IMAGE}' has numbers from -1.5 to -1.5; expected 0..1, as LeRobot's data sets have "
        "them: do not normalise it.",
    ),
    (
        {IMAGE: torch.zeros(2, 3, 16, 16), "task": ["push"]},
        ValueError,
        "the batch has 1 instructions in 'task' for 2 frames: give one each, or one string for "
        "all.",
    ),
]


@pytest.mark.parametrize(("batch", "error", "message"), BAD)
def test_bad_batches(plugin, value_file, batch, error, message):
    with pytest.raises(error) as caught:
        rewards(plugin, value_file, batch)
    assert caught.value.args[0] == message


def test_bad_models(plugin, tmp_path):
    message = (
        "the config of this reward model names no value model: RFTFConfig(value_path=...) takes "
        "the file of rftf train-value, from_pretrained a folder."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plugin.RFTFRewardModel(plugin.RFTFConfig(device="cpu"))
    config = EncoderConfig(image_size=None, state_dim=2)
    inputs = ["joints", keys.TOKENS, keys.TOKEN_MASK]
    model = temporal_value_model(config, in_keys=inputs)
    model.save(tmp_path / "value.safetensors")
    message = (
        "the value model reads 'joints'; from LeRobot's batch it can have ('observation', "
        "'image'), ('observation', 'state'), ('instruction', 'tokens'), ('instruction', 'mask')."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        rewards(plugin, tmp_path / "value.safetensors", {"joints": nn.Parameter(torch.zeros(1))})
