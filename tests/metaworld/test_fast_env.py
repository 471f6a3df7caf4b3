"""Our step and reset of Meta-World against its own, bit for bit, over experts' episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from rftf_torchrl import ScriptedExpert
from rftf_torchrl.metaworld.simulator import MetaWorldSimulator
from rftf_torchrl.metaworld.tasks import TASKS

pytestmark = pytest.mark.metaworld

CONF = Path(__file__).parents[2] / "recipes" / "conf"
SEEDS, STEPS, DRAWN_EVERY, SIZE = (3, 8), 130, 10, 32


class OwnStepAndReset:
    """A simulator whose environment is Meta-World's as it comes."""

    def __init__(self, task):
        self.simulator = MetaWorldSimulator(task, "train")
        self.env = self.simulator._env
        for replaced in ("_reset_hand", "_get_curr_obs_combined_no_goal", "touching_object"):
            delattr(self.env, replaced)

    def reset(self, seed):
        import mujoco

        simulator, env = self.simulator, self.env
        for _ in range(2):
            simulator._goals.reseed(simulator.task.id, seed)
            mujoco.mj_resetData(env.model, env.data)
            env.reset_model()
        mujoco.mj_forward(env.model, env.data)
        env.curr_path_length = 0
        env._prev_obs = env._get_curr_obs_combined_no_goal()
        return env._get_obs()


def physics(simulator):
    """All that MuJoCo goes on from, and where everything is."""
    import mujoco

    model, data = simulator.model, simulator.data
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, data, state, kind)
    places = model.body_pos, model.site_pos, data.xpos, data.geom_xpos, data.site_xpos
    return np.concatenate([state, *(place.ravel() for place in places)])


FIVE = OmegaConf.load(CONF / "env" / "metaworld_five.yaml").tasks
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in TASKS if name != FIVE[0]]


@pytest.mark.parametrize("name", [FIVE[0], *OTHERS])
def test_steps_and_resets_are_meta_worlds_own(name, pictures):
    own, ours = OwnStepAndReset(TASKS[name]), MetaWorldSimulator(TASKS[name], "train")
    solved = []
    for seed in SEEDS:
        observation = own.reset(seed)
        ours.reset(seed)
        assert np.array_equal(ours.state, observation)
        assert np.array_equal(physics(ours), physics(own.simulator))
        expert = ScriptedExpert(TASKS[name])
        for step in range(STEPS):
            action = expert.action(observation).astype(np.float32)
            observation, reward, _, _, info = own.env.step(action)
            assert ours.step(action) == bool(info["success"])
            assert np.array_equal(ours.state, observation)
            assert ours.dense_reward == reward
            assert np.array_equal(physics(ours), physics(own.simulator))
            if step % DRAWN_EVERY == 0:
                drawn = own.simulator.picture(SIZE)
                assert np.array_equal(ours.picture(SIZE), drawn)
                assert drawn.std() > 0
            solved.append(info["success"])
    assert any(solved) or name not in FIVE
    own.simulator.close()
    ours.close()
