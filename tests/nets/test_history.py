"""The history that travels with the data: per environment, per episode, per subtask of a chain."""

import re

import pytest
import torch
from _arm_env import ArmEnv
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.envs import ParallelEnv, SerialEnv, TransformedEnv
from torchrl.envs.utils import check_env_specs

from rftf_torchrl import ObservationHistory
from rftf_torchrl.keys import CHUNK, IMAGE, STATE

WINDOW, VALID = ("vla_inputs", "image_history"), ("vla_inputs", "valid")


def history(length=3):
    return ObservationHistory(length, {IMAGE: WINDOW, STATE: ("vla_inputs", "state_history")})


def numbers(data):
    """The decisions that the windows' images show, -1 where there is none."""
    shown = data[WINDOW][..., 0, 0, 0].int()
    return torch.where(data[VALID], shown, -1).tolist()


def act(tensordict):
    batch = tensordict.batch_size
    return tensordict.set(CHUNK, torch.zeros(*batch, 1, 7))


EPISODE = [[0, -1, -1], [0, 1, -1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_windows_of_an_episode():
    env = TransformedEnv(ArmEnv(), history())
    check_env_specs(env)
    data = env.rollout(9, act)
    assert numbers(data) == EPISODE
    assert numbers(data["next"]) == [*EPISODE[1:], [3, 4, 5]]
    assert data[WINDOW].dtype == torch.uint8
    assert not data[WINDOW][0, 1:].any()


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_each_environment_of_a_batch_by_itself(inside):
    """The second environment's episodes are shorter, so the two restart at different steps."""

    def make(horizon):
        env = ArmEnv(horizon=horizon)
        return TransformedEnv(env, history()) if inside else env

    env = SerialEnv(2, [lambda: make(5), lambda: make(2)])
    if not inside:
        env = TransformedEnv(env, history())
    collector = Collector(env, act, frames_per_batch=20, total_frames=20)
    data = next(iter(collector)).exclude("language_instruction")
    collector.shutdown()
    assert numbers(data[0]) == EPISODE * 2
    assert numbers(data[1]) == EPISODE[:2] * 5


def make_with_history():
    return TransformedEnv(ArmEnv(), history())


@pytest.mark.slow
def test_in_worker_processes():
    env = ParallelEnv(2, make_with_history, mp_start_method="fork")
    data = env.rollout(5, act, break_when_any_done=False)
    env.close()
    assert numbers(data[0]) == numbers(data[1]) == EPISODE


def test_recordings_give_the_same_windows():
    env = TransformedEnv(ArmEnv(), history())
    episodes = torch.cat([env.rollout(9, act), env.rollout(9, act)])
    frames = episodes.select(IMAGE, STATE)
    frame = torch.tensor([9, 0, 3, 5, 7, 6])
    found = history().windows_of(frames, frame, torch.tensor([5, 0, 0, 5, 5, 5]))
    for key in (WINDOW, VALID, ("vla_inputs", "state_history")):
        assert torch.equal(found[key], episodes[frame][key])


def test_a_camera_that_is_not_there():
    transform = ObservationHistory(2, {("observation", "wrist_image"): "seen"})
    env = TransformedEnv(ArmEnv(wrist=False), transform)
    with pytest.raises(KeyError) as raised:
        env.observation_spec  # noqa: B018
    assert raised.value.args[0] == (
        "the environment writes no ('observation', 'wrist_image'), which the policy looks back on; "
        "it writes ('observation', 'image'), ('observation', 'state'), crashed, episode_seed, "
        "executed, language_instruction, success, task_id. Switch that camera on, or build the "
        "policy without it."
    )
    with pytest.raises(KeyError) as raised:
        transform._reset(TensorDict(), TensorDict(a=1))
    assert raised.value.args[0] == (
        "('observation', 'wrist_image') is missing, so its history cannot be written; there are a."
    )


def test_a_step_without_the_window():
    env = TransformedEnv(ArmEnv(), history())
    start = env.reset().exclude(VALID)
    with pytest.raises(KeyError) as raised:
        env.step(act(start))
    assert raised.value.args[0] == (
        "('vla_inputs', 'valid') is missing from the step's input, so the history cannot be "
        "continued: pass on all entries that the reset or the last step returned."
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: history(0), ValueError, "length must be at least 1 observation, got 0."),
        (lambda: ObservationHistory(2, {}), ValueError, "windows is empty: name at least one"),
        (lambda: history()(TensorDict({}, [2])), KeyError, "single rows do not tell what came"),
        (
            lambda: history().windows_of(TensorDict(), torch.tensor([4, 3]), torch.tensor([4, 4])),
            ValueError,
            "frame 3 (row 1) is before its episode's start 4.",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
