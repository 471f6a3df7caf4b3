"""check_finite and FiniteCheck name the key, the count and the first index."""

from __future__ import annotations

import re

import pytest
import torch
from _envs import ChunkWalkEnv, walk_policy
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import TransformedEnv, check_env_specs
from torchrl.envs.transforms import Compose, Transform

from rftf_torchrl import FiniteCheck, check_finite

ADVICE = (
    "Stop here: one such element makes every parameter NaN within one optimizer step. Look at "
    "what writes this key."
)


def data_with(bad: float) -> TensorDict:
    reward = torch.zeros(4, 1)
    reward[2:] = bad
    return TensorDict(
        {"x": torch.ones(4, 2), "n": torch.arange(4), "next": {"reward": reward}}, [4]
    )


class Poison(Transform):
    """Write NaN to the reward of the third decision."""

    def _call(self, next_tensordict):
        if next_tensordict["observation", "state"][1] == 3:
            next_tensordict["reward"] = next_tensordict["reward"] * float("nan")
        return next_tensordict


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_message_names_key_count_index_and_value(bad):
    message = (
        f"('next', 'reward') has 2 non-finite of 4 elements, the first at index (2, 0): {bad}. "
        + ADVICE
    )
    with pytest.raises(FloatingPointError, match=f"^{re.escape(message)}$"):
        check_finite(data_with(float(bad)), ["x", ("next", "reward")])


def test_finite_and_integer_entries_pass():
    data = data_with(1e30)
    assert check_finite(data, ["x", "n", ("next", "reward")]) is None
    assert FiniteCheck(["x", "n", "reward"])(data) is data


def test_missing_key():
    with pytest.raises(KeyError) as caught:
        check_finite(data_with(0.0), ["reward"])
    message = "'reward' is missing, so it cannot be checked for non-finite elements."
    assert caught.value.args[0] == message
    with pytest.raises(KeyError, match="'advantage' is missing"):
        FiniteCheck(["advantage"])(data_with(0.0))


def test_data_path_looks_at_the_root_and_under_next():
    with pytest.raises(FloatingPointError, match=re.escape("('next', 'reward') has 2")):
        FiniteCheck(["reward"])(data_with(float("nan")))
    data = data_with(0.0)
    data["x"][1, 1] = float("inf")
    with pytest.raises(FloatingPointError, match=re.escape("'x' has 1 non-finite of 8")):
        FiniteCheck(["x"])(data)


@pytest.mark.parametrize("invert", [False, True])
def test_replay_buffer(invert):
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(4), batch_size=64)
    buffer.append_transform(FiniteCheck(["reward"]), invert=invert)

    def use():
        buffer.extend(data_with(float("nan")))
        buffer.sample()

    with pytest.raises(FloatingPointError, match="reward"):
        use()
    assert len(buffer) == (0 if invert else 4)


@pytest.mark.parametrize("batch_size", [(), (2,)])
def test_environment(batch_size):
    env = TransformedEnv(
        ChunkWalkEnv(batch_size), FiniteCheck(["reward", ("observation", "state")])
    )
    check_env_specs(env)
    assert env.rollout(3, walk_policy()).shape[-1] == 3


def test_environment_stops_at_a_bad_reset():
    class PoisonedReset(Transform):
        def _reset(self, tensordict, tensordict_reset):
            return tensordict_reset.set("observation", {"state": torch.full((3,), torch.nan)})

    check = FiniteCheck([("observation", "state")])
    env = TransformedEnv(ChunkWalkEnv(), Compose(PoisonedReset(), check))
    with pytest.raises(FloatingPointError, match="3 non-finite of 3"):
        env.reset()


def test_environment_stops_at_the_bad_step():
    env = TransformedEnv(ChunkWalkEnv(goal=100.0), Compose(Poison(), FiniteCheck(["reward"])))
    assert env.rollout(2, walk_policy()).shape == (2,)
    with pytest.raises(FloatingPointError, match=re.escape("'reward' has 1 non-finite of 1")):
        env.rollout(3, walk_policy())


def test_nothing_to_check():
    with pytest.raises(ValueError, match=r"keys is empty, so FiniteCheck would check nothing\."):
        FiniteCheck([])
