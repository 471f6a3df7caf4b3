"""Chains in the real simulator, against CALVIN's own loop in CALVIN's own environment."""

import contextlib
import io

import numpy as np
import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import (
    CalvinExpert,
    CalvinNotInstalledError,
    benchmark_sequences,
    evaluate_chains,
    initial_scene,
    require_calvin_env,
)
from rftf_torchrl.keys import CHUNK

pytestmark = pytest.mark.calvin


@pytest.fixture(scope="module")
def calvin_root():
    try:
        return require_calvin_env()
    except CalvinNotInstalledError as error:
        pytest.skip(str(error))


class DirectSimulator:
    """calvin_env as its authors configure it, with what the expert looks at; no code of ours."""

    scene = "D"

    def __init__(self, root):
        import hydra

        overrides = ["scene=calvin_scene_D", "cameras=no_cameras", "use_vr=false"]
        overrides += ["env.use_egl=false", "env.use_scene_info=true"]
        with (
            contextlib.redirect_stdout(io.StringIO()),
            hydra.initialize_config_dir(str(root / "conf"), version_base="1.1"),
        ):
            config = hydra.compose("config_data_collection", overrides=overrides)
            self.env = hydra.utils.instantiate(config.env)
            self.oracle = hydra.utils.instantiate(config.tasks)

    def reset(self, robot_obs, scene_obs):
        """As in a fresh process: calvin_env's reset alone leaves traces of the chain before.

        Loading puts the blocks at random places first, and even those leave a trace, so that
        calvin_env's own evaluation differs from run to run by a step now and then.
        """
        self.env.seed(0)
        self.env.scene.np_random = self.env.np_random
        with contextlib.redirect_stdout(io.StringIO()):
            self.env.load()
        self.env.robot.gripper_action = 1
        self._see(self.env.reset(robot_obs=robot_obs, scene_obs=scene_obs), self.env.get_info())

    def step(self, action):
        observation, _, _, info = self.env.step(action)
        self._see(observation, info)

    def _see(self, observation, info):
        self.robot_obs, self.scene_obs = observation["robot_obs"], observation["scene_obs"]
        self.info = info

    def close(self):
        self.env.close()
        self.env.ownsPhysicsClient = False


def official_loop(simulator, expert, chain, limit):
    """The loop of CALVIN's ``evaluate_policy.py``, written down once more."""
    simulator.reset(*initial_scene(chain.initial_state))
    length, steps = 0, []
    for task in chain.tasks:
        start_info = simulator.env.get_info()
        expert.start(task, simulator)
        success, taken = False, 0
        for _ in range(limit):
            simulator.step(expert.action(simulator))
            taken += 1
            if simulator.oracle.get_task_info_for_set(start_info, simulator.info, {task}):
                success = True
                break
        steps.append(taken)
        if not success:
            break
        length += 1
    return length, tuple(steps)


@pytest.mark.parametrize(("count", "limit"), [(20, 360), (4, 40)])
def test_the_expert_is_evaluated_as_in_the_official_loop(count, limit, calvin_root):
    report = evaluate_chains(
        controller=CalvinExpert, chains=count, steps_per_subtask=limit, workers=2
    )
    simulator = DirectSimulator(calvin_root)
    try:
        expected = [
            official_loop(simulator, CalvinExpert(), chain, limit)
            for chain in benchmark_sequences(count)
        ]
    finally:
        simulator.close()
    assert report.crashed == ()
    assert [(r.length, r.steps) for r in report.results] == expected
    if limit == 360:
        assert report.average_length > 4
    else:
        assert 0 < report.average_length < 5


class Recorder(CalvinExpert):
    """The expert with actions that a float32 policy can give, task by task."""

    tapes: list = []  # noqa: RUF012

    def start(self, task, simulator):
        super().start(task, simulator)
        self.tapes.append([])

    def action(self, simulator):
        action = super().action(simulator).astype(np.float32)
        self.tapes[-1].append(action)
        return action.astype(np.float64)


class Tape(nn.Module):
    """Plays recorded actions in chunks of eight, a tape for each task."""

    def __init__(self, tapes):
        super().__init__()
        self.tapes, self.number, self.place = tapes, -1, 0

    def forward(self, state):
        rest = self.tapes[self.number][self.place : self.place + 8]
        self.place += 8
        rest = [*rest, *[rest[-1]] * (8 - len(rest))]
        return torch.from_numpy(np.stack(rest)).unsqueeze(0)


class TapePolicy(TensorDictModule):
    """Takes the next tape whenever a task starts."""

    def __init__(self, tapes):
        super().__init__(Tape(tapes), in_keys=[("observation", "state")], out_keys=[CHUNK])

    def reset(self):
        self.module.number += 1
        self.module.place = 0


def test_a_policy_that_acts_in_chunks_gets_what_the_controller_gets(calvin_root):
    Recorder.tapes = []
    by_step = evaluate_chains(controller=Recorder, chains=3, workers=0)
    by_chunk = evaluate_chains(
        TapePolicy(Recorder.tapes), chains=3, workers=0, image_size=None, chunk_size=8
    )
    assert by_chunk.results == by_step.results
    assert any(steps % 8 for result in by_chunk.results for steps in result.steps)
    assert by_chunk.protocol == (
        "NOT the official protocol: 3 of the 1000 chains; other instructions than the benchmark's: "
        "the library's own; the policy sees the simulator's state"
    )
