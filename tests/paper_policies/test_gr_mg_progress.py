"""GR-MG's progress: it renews the goal image, and is a value model."""

from dataclasses import replace

import pytest
import torch
from torchrl.envs import TransformedEnv

pytest.importorskip("transformers")
from _arm_env import ArmEnv
from _paper_policies import SPECS, build, rollout

from rftf_torchrl import gr_mg_value_model, keys, values_of_states


def test_goal_images_are_renewed_with_the_progress():
    asked = []

    def paint(observation, percent):
        asked.append((int(observation[keys.IMAGE][0, 0, 0]), percent))
        return torch.full_like(observation[keys.IMAGE], 50 + len(asked))

    spec = replace(SPECS["gr_mg"], goal_every=2)
    env = TransformedEnv(ArmEnv(chunk=2), spec.observation_transform(goal_images=paint))

    def act(tensordict):
        tensordict["progress"] = torch.tensor([0.1 * (1 + env.base_env.count) + 0.05])
        return tensordict.set(keys.CHUNK, torch.zeros(2, 7))

    data = env.rollout(5, act)
    assert data["vla_inputs", "goal_image"][:, 0, 0, 0].tolist() == [51, 51, 52, 52, 53]
    assert asked == [(0, 0), (2, 20), (4, 40)]


def test_gr_mg_progress_is_a_value_model():
    spec = SPECS["gr_mg"]
    policy = build(spec)
    data = rollout(spec, policy)
    model = gr_mg_value_model(policy, spec)
    value = model(data.clone())["temporal_value"]
    torch.testing.assert_close(value, data["progress"])
    assert value.shape == (5, 1)
    model.calibrate(data[[int(value.argmin())]], data[[int(value.argmax())]], mode="global")
    calibrated = model(data.clone())["temporal_value"]
    torch.testing.assert_close(calibrated.min(), torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(calibrated.max(), torch.tensor(1.0), atol=1e-4, rtol=0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(2)
    assert torch.equal(model(data.clone())["temporal_value"], calibrated)


def test_progress_without_the_next_histories_is_refused():
    """As collected by the recipes, whose environments drop them: V(s') would be V(s)."""
    spec = SPECS["gr_mg"]
    policy = build(spec)
    data = rollout(spec, policy)
    model = gr_mg_value_model(policy, spec)
    assert not torch.equal(*values_of_states(model, data))
    with pytest.raises(KeyError, match="missing under 'next', so that the next state would pass"):
        values_of_states(model, data.exclude(("next", "vla_inputs")))
