"""TorchRL's own environments, played in decisions, through the door for simulators."""

import pickle
import re

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import GymEnv, check_env_specs
from torchrl.envs.custom import PendulumEnv

from rftf_torchrl import (
    DecisionEnv,
    EnvConfig,
    Episode,
    HashTokenizer,
    Task,
    make_simulator,
    run_episodes,
)
from rftf_torchrl.envs.gym_simulator import _InfoFlag
from rftf_torchrl.envs.simulator import simulator_problems

HILL = {
    "env_ids": {"hill": "MountainCarContinuous-v0"},
    "instructions": {"hill": "drive up the hill"},
}
TASK = Task(0, "hill", "drive up the hill")


def pendulum(name, **arguments):
    assert name == "pendulum"
    return PendulumEnv(**arguments)


def hill(**settings):
    return DecisionEnv(GymEnv("MountainCarContinuous-v0"), TASK, **settings)


def start(env, seed):
    return env.reset(TensorDict({"episode_seed": torch.tensor([seed])}))["observation", "state"]


def play(env, action):
    """Whole episode 0 under one and the same action, as [T]."""
    current, steps = env.reset(TensorDict({"episode_seed": torch.tensor([0])})), []
    while not steps or not steps[-1]["next", "done"]:
        shape = env.full_action_spec[env.action_key].shape
        steps.append(env.step(current.clone().set(env.action_key, action.expand(shape))))
        current = steps[-1]["next"].exclude("reward")
    return torch.stack(steps)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_specs(chunk_size):
    check_env_specs(hill(chunk_size=chunk_size))


def test_a_seed_decides_the_start_and_the_splits_share_none():
    train, test = hill(), hill(split="test")
    assert torch.equal(start(train, 3), start(train, 3))
    starts = [start(env, seed) for env in (train, test) for seed in range(5)]
    assert len({tuple(state.tolist()) for state in starts}) == 10


def test_a_reset_leaves_the_policys_noise_alone():
    env = hill()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    start(env, 3)
    assert torch.equal(torch.rand(1), expected)


def test_a_termination_ends_the_chunk_and_means_success():
    """Pushing to the left alone never gets a car up the hill; pushing with the motion does."""
    env = hill(chunk_size=10, horizon=30)
    idle = play(env, -torch.ones(1))
    assert len(idle) == 30
    assert idle["next", "truncated"][-1]
    assert not idle["next", "success"].any()

    current = env.reset(TensorDict({"episode_seed": torch.tensor([0])}))
    while not current["done"]:
        push = current["observation", "state"][1].sign().expand(10, 1)
        current = env.step(current.set(("vla_action", "chunk"), push))["next"]
    assert current["success"]
    assert current["terminated"]
    assert current["reward"] == 1
    assert not current["executed"].all()


@pytest.mark.parametrize(("push", "success"), [(1.0, True), (-1.0, False)])
def test_success_is_an_entry_of_info(tmp_path, push, success):
    """A termination to the left is none; without the entry it would be."""
    options = {
        "env_ids": {"line": "tiny_gym:Line-v0"},
        "instructions": {"line": "to the right"},
        "success": "success",
    }
    simulator = make_simulator(EnvConfig("gym", ["line"], None, 8, options=options))
    played = play(simulator.factory("train", tmp_path)(Episode("line", 0)), torch.tensor([push]))
    assert len(played) == 1, "eight pushes of a half are enough to leave the line"
    assert played["next", "terminated"].all()
    assert played["next", "success"].item() is success
    assert played["next", "reward"].item() == success
    assert 1 < played["next", "executed"].sum() < 8


def test_a_discrete_action_is_the_largest_number():
    env = DecisionEnv(GymEnv("CartPole-v1"), Task(0, "pole", "balance"), chunk_size=3)
    check_env_specs(env)
    assert env.full_action_spec["vla_action", "chunk"].shape == (3, 2)
    assert env._own_action(torch.tensor([0.1, -0.3])).tolist() == [1, 0]


def test_actions_are_scaled_to_the_bounds():
    env = DecisionEnv(PendulumEnv(), TASK, state_key="th")
    current = env.reset()
    env.step(current.set("action", torch.full([1], 0.5)))
    assert env._own_action(torch.tensor([0.5])).item() == pytest.approx(1.0)
    assert env._own_action(torch.tensor([7.0])).item() == pytest.approx(2.0)


def test_an_action_that_cannot_be_scaled():
    from torchrl.data import Unbounded

    env = PendulumEnv()
    env.action_spec = Unbounded([1])
    message = "the action of task 'hill' is Unbounded"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        DecisionEnv(env, TASK, state_key="th")


def test_episodes_of_a_configured_simulator(tmp_path):
    simulator = make_simulator(EnvConfig("gym", ["hill"], None, 5, 4, HILL))
    make_env = pickle.loads(pickle.dumps(simulator.factory("train", tmp_path)))
    env = make_env(Episode("hill", 0, "drive down"))
    assert env.instruction == "drive down"

    class Push(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.in_keys = [("observation", "state")]
            self.out_keys = [("vla_action", "chunk")]

        def forward(self, data):
            return data.set(("vla_action", "chunk"), torch.ones(*data.batch_size, 5, 1))

    episodes = list(enumerate([Episode("hill", 0), Episode("hill", 1)]))
    results = list(run_episodes(make_env, Push(), episodes, deterministic=True))
    assert [len(result.trajectory) for result in results] == [4, 4]


def test_an_environment_that_a_function_makes(tmp_path):
    options = {
        "env_ids": {"up": "pendulum"},
        "instructions": {"up": "swing up"},
        "make": f"{__name__}:pendulum",
        "state": "th",
    }
    simulator = make_simulator(EnvConfig("gym", ["up"], None, options=options))
    env = simulator.factory("train", tmp_path)(Episode("up", 0))
    assert isinstance(env.env, PendulumEnv)


def test_what_the_settings_name_has_to_be_there():
    options = {
        "env_ids": {"hill": "MountainCarX-v0"},
        "instructions": {"hill": "drive"},
        "same_scene": [["hill", "valley"]],
    }
    scene, unknown = simulator_problems(EnvConfig("gym", ["hill"], None, options=options))
    assert scene == "env.options.same_scene: there is no task 'valley'"
    assert unknown.startswith("env.options.env_ids.hill=MountainCarX-v0: Environment ")
    options = {**HILL, "make": "math"}
    (problem,) = simulator_problems(EnvConfig("gym", ["hill"], None, options=options))
    assert "unknown maker of environments 'math': give your own as 'module:Name'" in problem


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"state_key": "obs"}, "state_key"),
        ({"success_key": "succes"}, "success_key"),
        ({"image_size": 8}, "image_key"),
    ],
)
def test_an_entry_that_the_environment_lacks(wrong, argument):
    with pytest.raises(ValueError, match=rf"has no '\w+' \({argument}\); it has 'observation', "):
        hill(**wrong)


def test_another_split():
    with pytest.raises(ValueError, match=r"^split must be 'train' or 'test', got 'Test'$"):
        hill(split="Test")


def test_a_flag_that_info_never_has(caplog, monkeypatch):
    monkeypatch.setattr("rftf_torchrl.envs.gym_simulator._PATIENCE", 3)
    flag = _InfoFlag("succes")
    for _ in range(5):
        assert not flag({"success": True}, TensorDict())["succes"]
    assert caplog.messages == [
        "in 3 steps info has never had 'succes' (env.options.success), so no episode succeeded; "
        "it has 'success'"
    ]


def test_a_longer_instruction_needs_a_tokenizer():
    words = " ".join(["up"] * 20)
    env = hill(instruction=words, tokenizer=HashTokenizer(max_length=20))
    assert env.reset()["instruction", "tokens"].shape == (20,)
