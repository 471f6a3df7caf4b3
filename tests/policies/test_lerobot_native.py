"""A LeRobot policy beside LeRobot's own inference, and back in its format; with LeRobot only."""

import pytest
import torch

pytest.importorskip("lerobot")

from _lerobot import INPUTS, act_config, observation, random_stats, smolvla_config
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from tensordict.nn import InteractionType, set_interaction_type

from rftf_torchrl import LeRobotSpec, compare_with_native, export_policy, keys

SENTENCES = ["open the window", "close drawer"] * 3


@pytest.fixture(params=["act", "smolvla"])
def checkpoint(request, tmp_path):
    """A folder as LeRobot saves a policy."""
    torch.manual_seed(0)
    config = act_config() if request.param == "act" else smolvla_config(tmp_path / "vlm")
    get_policy_class(config.type)(config).save_pretrained(tmp_path / "own")
    for processor in make_pre_post_processors(config, dataset_stats=random_stats()):
        processor.save_pretrained(tmp_path / "own")
    return tmp_path / "own"


def tuned(policy):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.is_floating_point():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return policy


def test_a_wrapped_checkpoint_acts_as_lerobot_does(checkpoint):
    spec = LeRobotSpec.from_pretrained(str(checkpoint), INPUTS, chunk_size=3)
    found = compare_with_native(spec.build_pretrained(), spec, str(checkpoint), SENTENCES)
    assert found.ours.shape == (6, 3, 4)
    assert torch.equal(found.ours, found.native)
    assert found.in_use == {
        "image of observation.images.camera1": "32 x 32, of the checkpoint 32 x 32",
        "statistics of observation.images.camera1": found.in_use[
            "statistics of observation.images.camera1"
        ],
        "statistics of observation.state": "MEAN_STD of mean, std",
        "statistics of action": "MEAN_STD of mean, std",
    }
    assert "bit for bit" in found.table()


def test_other_statistics_show(checkpoint):
    spec = LeRobotSpec.from_pretrained(str(checkpoint), INPUTS, chunk_size=3)
    policy = spec.build_pretrained()
    spec.stats["observation.state"]["mean"] = [1.0] * 5
    assert compare_with_native(policy, spec, str(checkpoint), SENTENCES).largest > 1e-4


def test_an_exported_policy_acts_the_same_in_lerobot(checkpoint, tmp_path):
    spec = LeRobotSpec.from_pretrained(str(checkpoint), INPUTS, chunk_size=3)
    policy = tuned(spec.build_pretrained())
    export_policy(policy, spec, tmp_path / "exported")
    found = compare_with_native(policy, spec, str(tmp_path / "exported"), SENTENCES)
    assert torch.equal(found.ours, found.native)
    before = compare_with_native(spec.build_pretrained(), spec, str(checkpoint), SENTENCES)
    assert not torch.equal(found.ours, before.ours)
    config = PreTrainedConfig.from_pretrained(tmp_path / "exported")
    assert config.n_action_steps == 3
    assert config.type == spec.config["type"]


def test_its_select_action_plays_the_chunk(checkpoint, tmp_path):
    if PreTrainedConfig.from_pretrained(checkpoint).type != "act":
        pytest.skip("a flow draws its own noise in select_action")
    spec = LeRobotSpec.from_pretrained(str(checkpoint), INPUTS, chunk_size=3)
    policy = tuned(spec.build_pretrained())
    export_policy(policy, spec, tmp_path / "exported")
    folder = str(tmp_path / "exported")
    config = PreTrainedConfig.from_pretrained(folder)
    native = get_policy_class("act").from_pretrained(folder, config=config)
    before, after = make_pre_post_processors(config, pretrained_path=folder)
    data = observation(2)
    batch = {name: data[key] for name, key in INPUTS.items()}
    batch["observation.images.camera1"] = batch["observation.images.camera1"].float() / 255
    with torch.no_grad(), set_interaction_type(InteractionType.DETERMINISTIC):
        ours = policy(spec.observation_transform()(data))[keys.CHUNK]
        played = [after(native.select_action(before(dict(batch)))) for _ in range(3)]
    torch.testing.assert_close(torch.stack(played, 1), ours)
