"""Bad input at the door for simulators: each error by its whole message."""

import re

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import GymEnv

from rftf_torchrl import (
    DecisionEnv,
    EnvConfig,
    Task,
    check_seeds,
    environment_factory,
    make_simulator,
    simulator_class,
    simulator_problems,
)


class Headless:
    """A simulator that lacks two members."""

    kind = "headless"
    Options = Task
    tasks = same_scene = ()
    steps_per_action = 1


ERRORS = [
    (
        "metawrld",
        "unknown simulator 'metawrld': choose from metaworld, calvin, libero, gym, give your "
        "own as 'module:Name', or offer it as an entry point in the group "
        "'rftf_torchrl.simulators'. Did you mean 'metaworld'?",
    ),
    (
        "no_such_module:Sim",
        "no simulator at no_such_module:Sim (No module named 'no_such_module'): make it "
        "importable, for example by its folder in PYTHONPATH.",
    ),
    (
        f"{__name__}:Headless",
        f"{__name__}:Headless is no simulator: it lacks problems, factory.",
    ),
]


@pytest.mark.parametrize(("kind", "message"), ERRORS)
def test_what_is_no_simulator(kind, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        simulator_class(kind)
    assert simulator_problems(EnvConfig(kind, ["reach"])) == [f"env.kind: {message}"]


def test_an_option_that_it_does_not_have():
    env = EnvConfig("metaworld", ["reach"], options={"action_repeats": 3})
    message = "env.options.action_repeats: there is no such setting, did you mean 'action_repeat'?"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_simulator(env)


def test_a_wrong_task():
    options = {"env_ids": {"hill": "MountainCarContinuous-v0"}}
    env = EnvConfig("gym", ["valley"], options=options)
    assert simulator_problems(env) == [
        "env.tasks: gym has no task 'valley'; it has hill",
        "env.options.instructions: task 'hill' has no instruction",
    ]


def test_no_dense_reward_of_its_own(tmp_path):
    simulator = make_simulator(EnvConfig("calvin", ["open_drawer"]))
    with pytest.raises(ValueError, match=r"^calvin has no dense reward of its own$"):
        environment_factory(simulator, "test", tmp_path, potential=True)
    simulator = make_simulator(EnvConfig("metaworld", ["reach"]))
    assert environment_factory(simulator, "test", tmp_path, potential=True).potential


def test_a_reset_that_ignores_its_seed():
    class Stuck(DecisionEnv):
        def _reset(self, tensordict=None, **kwargs):
            return super()._reset(TensorDict({"episode_seed": torch.tensor([3])}))

    task = Task(0, "hill", "drive up the hill")
    check_seeds(DecisionEnv(GymEnv("MountainCarContinuous-v0"), task), "hill")
    message = (
        "the environment of task 'hill' starts seeds 0 and 1 in the same observation: its reset "
        "must draw the initial state from the 'episode_seed' that it is given."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_seeds(Stuck(GymEnv("MountainCarContinuous-v0"), task), "hill")
