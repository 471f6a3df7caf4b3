"""Meta-World's own dense reward as an entry of the environment, and what it starts from."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import check_env_specs

from rftf_torchrl import MetaWorldEnv, ScriptedExpert
from rftf_torchrl.metaworld.simulator import MetaWorldSimulator
from rftf_torchrl.metaworld.tasks import get_task

pytestmark = pytest.mark.metaworld


def test_the_potential_rises_with_the_expert():
    env = MetaWorldEnv("drawer-open", image_size=None, potential=True, horizon=200)
    check_env_specs(env)
    current = env.reset(TensorDict({"episode_seed": torch.tensor([0])}))
    expert = ScriptedExpert(env.task, noise=0.0, seed=0)
    values = [current["env_potential"].item()]
    while not current["done"]:
        action = torch.as_tensor(expert.action(env.simulator.state), dtype=torch.float32)
        current = env.step(current.set("action", action))["next"]
        values.append(current["env_potential"].item())
    env.close()
    assert current["success"]
    assert 0.0 <= values[0] < 0.5
    assert 0.8 < values[-1] <= 1.0


def test_asking_for_the_potential_changes_no_trajectory():
    states = []
    for potential in (False, True):
        env = MetaWorldEnv("door-unlock", image_size=None, potential=potential, horizon=5)
        current = env.reset(TensorDict({"episode_seed": torch.tensor([3])}))
        for _ in range(5):
            current = env.step(current.set("action", torch.full((4,), 0.4)))["next"]
        states.append(current["observation", "state"])
        assert ("env_potential" in current) == potential
        env.close()
    assert torch.equal(*states)


@pytest.mark.parametrize("name", ["drawer-open", "push"])
def test_an_episode_starts_from_one_of_its_start_vectors(name):
    simulator = MetaWorldSimulator(get_task(name), "train", render=False)
    drawn = []
    draw = simulator._goals.draw
    simulator._env._get_state_rand_vec = lambda: drawn.append(draw()) or drawn[-1]
    simulator.reset(5)
    possible = simulator.start_vectors(5)
    simulator.close()
    assert any(np.array_equal(drawn[-1], vector) for vector in possible)
