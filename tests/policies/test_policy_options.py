"""What a run's policy is told: the sizes that its class takes, and options that have an effect."""

from __future__ import annotations

import pytest

from rftf_torchrl import PolicyConfig, Sizes
from rftf_torchrl.policies.spec import policy_problems, policy_spec

SIZES = Sizes(2, image_size=None, wrist=False, robot="my_sim", state_dim=3, action_dim=4)


class Plain:
    """Neither a dataclass nor of all sizes."""

    kind = f"{__name__}:Plain"

    def __init__(self, chunk_size, action_dim, width=16):
        self.sizes = chunk_size, action_dim, width

    @classmethod
    def from_dict(cls, spec):
        return cls(**spec)

    def build(self): ...

    def to_dict(self): ...

    def observation_transform(self): ...


def test_a_class_gets_the_sizes_that_it_takes():
    settings = PolicyConfig(Plain.kind, {"width": 8})
    assert policy_problems(settings, SIZES) == []
    assert policy_spec(settings, SIZES).sizes == (2, 4, 8)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"flow_steps": 8}, "flow_steps=8 has no effect with policy.options.head=gaussian"),
        ({"head": "tokens", "init_scale": 0.9}, "init_scale=0.9 has no effect with"),
        ({"head": "flow", "bins": 64}, "bins=64 has no effect with policy.options.head=flow"),
    ],
)
def test_an_option_of_another_head(options, found):
    (problem,) = policy_problems(PolicyConfig(options=options), SIZES)
    assert problem.startswith(f"policy.options.{found}")
    usual = {**options, "flow_steps": 4, "init_scale": 0.3, "bins": 11}
    assert policy_problems(PolicyConfig(options=usual), SIZES) == []


def test_random_weights_of_nothing():
    (problem,) = policy_problems(PolicyConfig(random_weights=True), SIZES)
    assert problem == "policy.random_weights=true has no effect without policy.pretrained"


def test_a_typo_is_named_with_a_saved_policy_too():
    settings = PolicyConfig("seer", {"chunk_sise": 1}, path="seer.safetensors")
    (problem,) = policy_problems(settings, SIZES)
    assert problem.startswith("policy.options.chunk_sise: there is no such setting, did you mean")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"inputs": None, "config": {}}, "policy.pretrained: a policy of LeRobot needs its"),
        ({"inputs": {}, "config": {"type": "act"}}, "policy.options.config: input_features is"),
    ],
)
def test_half_a_policy_of_lerobot(options, found):
    (problem,) = policy_problems(PolicyConfig("lerobot", options), SIZES)
    assert problem.startswith(found)
