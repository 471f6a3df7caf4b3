"""An environment that begins the next episode inside a step, as vectorised simulators do."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import EnvBase, ParallelEnv, SerialEnv, TransformedEnv

from rftf_torchrl import GoalImages, ObservationHistory, ValueReward
from rftf_torchrl.paper_policies.gr_mg.goal_images import AGE, GOAL_IMAGE


def counted():
    return Counting(native=False)


class Counting(EnvBase):
    """Counts its steps; the two environments run out of time after 3 and 5."""

    def __init__(self, native=True):
        super().__init__(batch_size=[2])
        flag = Binary(shape=(2, 1), dtype=torch.bool)
        number = Unbounded((2, 1))
        self.observation_spec = Composite(x=number, success=flag, shape=(2,))
        self.action_spec = Composite(action=number.clone(), shape=(2,))
        self.reward_spec = Composite(reward=number.clone(), shape=(2,))
        ends = {name: flag.clone() for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(ends, shape=(2,))
        self._torchrl_native_autoreset = native

    def _shown(self, done):
        never = torch.zeros_like(done)
        ends = {"done": done, "terminated": never, "truncated": done.clone()}
        return TensorDict({"x": self.count.clone(), "success": never.clone(), **ends}, [2])

    def _reset(self, tensordict):
        self.count = torch.zeros(2, 1)
        return self._shown(torch.zeros(2, 1, dtype=torch.bool))

    def _step(self, tensordict):
        self.count = self.count + 1
        done = self.count >= torch.tensor([[3.0], [5.0]])
        self.count = torch.where(done, 0.0, self.count)
        return self._shown(done).set("reward", torch.zeros(2, 1))

    def _set_seed(self, seed):
        pass


def rollout(transform):
    env = TransformedEnv(Counting(), transform)
    env._torchrl_native_autoreset = True
    return env.rollout(7, break_when_any_done=False)


def test_the_next_episode_pays_nothing_for_the_last_step():
    model = TensorDictModule(lambda x: x / 10, ["x"], ["temporal_value"])
    data = rollout(ValueReward(model, gamma=1.0))
    expected = torch.full((2, 7, 1), 0.1)
    expected[0, [2, 5]] = expected[1, 4] = 0.0
    torch.testing.assert_close(data["next", "reward"], expected)
    torch.testing.assert_close(data["temporal_value"], data["x"] / 10)


def test_a_history_begins_again():
    history = ObservationHistory(3, {"x": "window"}, valid_key="valid")
    data = rollout(history)
    assert data["valid"].sum(-1).tolist() == [[1, 2, 3, 1, 2, 3, 1], [1, 2, 3, 3, 3, 1, 2]]
    assert data["window"][0, 3].flatten().tolist() == [0, 0, 0]
    assert data["window"][1, 4].flatten().tolist() == [2, 3, 4]


def test_a_new_episode_gets_a_goal_image_of_its_own():
    class Picturing(Counting):
        def __init__(self):
            super().__init__()
            picture = Bounded(0, 255, shape=(2, 3, 1, 1), dtype=torch.uint8)
            self.observation_spec["observation", "image"] = picture

        def _shown(self, done):
            shown = super()._shown(done)
            picture = self.count.to(torch.uint8).reshape(2, 1, 1, 1).expand(2, 3, 1, 1)
            return shown.set(("observation", "image"), picture.clone())

    env = TransformedEnv(Picturing(), GoalImages(every=20))
    env._torchrl_native_autoreset = True
    data = env.rollout(7, break_when_any_done=False)
    assert data[AGE].squeeze(-1).tolist() == [[0, 1, 2, 0, 1, 2, 0], [0, 1, 2, 3, 4, 0, 1]]
    assert not data[GOAL_IMAGE].any(), "each is the first image of its episode"


@pytest.mark.parametrize("batched", [SerialEnv, ParallelEnv])
def test_batches_of_environments_are_asked_once(batched):
    """Theirs answer to any name, so the question has to end."""
    model = TensorDictModule(lambda x: x / 10, ["x"], ["temporal_value"])
    env = TransformedEnv(batched(2, counted), ValueReward(model, gamma=1.0))
    try:
        data = env.rollout(2)
    finally:
        env.close()
    torch.testing.assert_close(data["next", "reward"], torch.full((2, 2, 2, 1), 0.1))
