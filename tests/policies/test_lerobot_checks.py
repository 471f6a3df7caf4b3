"""What the adapter refuses or changes of a LeRobot policy; stand-ins for LeRobot's classes."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from rftf_torchrl import LeRobotSpec, lerobot_actor
from rftf_torchrl.policies.lerobot import spec as spec_module


class Policy(nn.Module):
    """Predicts from the state, with `spread` times noise of its own."""

    def __init__(self, kind, spread, **config):
        super().__init__()
        self.linear, self.spread = nn.Linear(3, 2), spread
        self.model = nn.Identity()
        self.config = SimpleNamespace(
            type=kind,
            chunk_size=4,
            input_features={"observation.state": SimpleNamespace(shape=(3,))},
            action_feature=SimpleNamespace(shape=(2,)),
            **config,
        )

    def predict_action_chunk(self, batch, noise=None):
        mean = self.linear(batch["observation.state"])[:, None].expand(-1, 4, 2)
        return mean + self.spread * torch.randn_like(mean)


def refused(call):
    with pytest.raises(ValueError, match=r"^(a|the|two) ") as caught:
        call()
    return re.sub(r"by up to [0-9.]+", "by up to N", str(caught.value))


def test_a_flow_that_is_not_known_is_refused():
    assert refused(lambda: lerobot_actor(Policy("xvla", 1.0, max_action_dim=8))) == (
        "a 'xvla' policy is a flow, and only pi0, pi05, smolvla are known to start from the noise "
        "that they are given: pass predict=, a function of policy and batch whose chunk is the "
        "same at each call."
    )


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("eo1", {"max_action_dim": 32}),
        ("evo1", {"max_action_dim": 24}),
        ("fastwam", {}),
        ("gaussian_actor", {}),
        ("lingbot_va", {}),
        ("molmoact2", {}),
        ("multi_task_dit", {"n_obs_steps": 1}),
        ("vla_jepa", {}),
        ("mine", {"n_obs_steps": 2}),
    ],
)
def test_a_chunk_that_is_no_function_of_one_observation(kind, config):
    assert refused(lambda: lerobot_actor(Policy(kind, 0.0, **config))) == (
        f"the chunk of a {kind!r} policy is no function of one observation (it needs past ones, or "
        "a sample of its own): pass predict=, a function of policy and batch."
    )


@pytest.mark.parametrize("own", [True, False], ids=["predict", "the policy's own"])
def test_a_prediction_by_chance_is_refused(own):
    policy = Policy("xvla", 1.0, max_action_dim=8) if own else Policy("mine", 1.0)
    predict = (lambda p, batch: p.predict_action_chunk(batch)) if own else None
    assert refused(lambda: lerobot_actor(policy, predict=predict)) == (
        "two predictions of one observation differ by up to N: the chunk of this "
        f"{policy.config.type!r} policy depends on chance. Pass predict=, a function of policy and "
        "batch that starts from noise of its own choice, the same at each call."
    )


def test_a_prediction_without_chance_is_taken_and_no_random_number_is_drawn():
    policy = Policy("xvla", 0.0, max_action_dim=8, tokenizer_max_length=5)
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    actor = lerobot_actor(policy, predict=lambda p, batch: p.predict_action_chunk(batch))
    assert torch.equal(torch.rand(1), first)
    language = {"tokens": torch.ones(1, 5).long(), "attention_mask": torch.ones(1, 5).bool()}
    batch = {"lerobot": {"observation": {"state": torch.zeros(1, 3), "language": language}}}
    assert actor(TensorDict(batch, [1]))["vla_action", "chunk"].shape == (1, 4, 2)


@pytest.fixture
def statistics(monkeypatch):
    """What reaches LeRobot's processors of a spec's statistics."""
    made = {}

    def processors(config, *, dataset_stats):
        made.update(dataset_stats)
        return None, None

    config = SimpleNamespace(from_pretrained=lambda folder: None)
    lerobot = SimpleNamespace(PreTrainedConfig=config, make_pre_post_processors=processors)
    monkeypatch.setattr(spec_module, "_lerobot", lambda name: lerobot)

    def given(stats):
        config = {"type": "act", "input_features": {"observation.state": {"type": "STATE"}}}
        spec = LeRobotSpec(config, {"observation.state": "state"}, stats)
        spec.processors()
        assert spec.stats == stats
        return made

    return given


def test_a_constant_number_is_not_stretched(statistics, caplog):
    stats = {
        "observation.state": {
            "mean": [1.0, 2.0, 300.0],
            "std": [0.5, 0.0, 1e-5],
            "min": [0.0, 2.0, 300.0],
            "max": [3.0, 2.0, 301.0],
        },
        "action": {"mean": [1.0], "std": [0.0], "min": [1.0], "max": [1.0]},
    }
    with caplog.at_level(logging.WARNING):
        found = statistics(stats)
    assert found["observation.state"]["std"].tolist() == [0.5, 1.0, 1.0]
    assert found["observation.state"]["max"].tolist() == [3.0, 4.0, 301.0]
    assert {name: value.tolist() for name, value in found["action"].items()} == stats["action"]
    assert caplog.messages == [
        "observation.state is constant at index 1, 2 in the data of this LeRobot checkpoint: these "
        "numbers are shifted and not stretched, where LeRobot would divide by 1e-8"
    ]


def test_small_numbers_that_vary_stay(statistics, caplog):
    stats = {"observation.state": {"mean": [0.0], "std": [2e-5], "q01": [0.0], "q99": [1e-4]}}
    found = statistics(stats)["observation.state"]
    assert found["std"].tolist() == torch.tensor([2e-5]).tolist()
    assert found["q99"].tolist() == torch.tensor([1e-4]).tolist()
    assert not caplog.messages
