import numpy as np
from torchrl.data import Unbounded

from rftf_torchrl import Task
from rftf_torchrl.envs.decision import DecisionBase


class OneBuffer(DecisionBase):
    """A simulator that writes each state into the same array."""

    task = Task(0, "count", "count")

    def __init__(self):
        super().__init__(chunk_size=1, horizon=5)
        self.state = np.zeros(1, dtype=np.float32)
        self.set_instruction(None)
        self._prepare({"state": Unbounded([1])}, 1, seed=0, extra={})

    def _begin(self, episode_seed):
        self.state[:] = 0

    def _act(self, action):
        self.state += 1
        return False, False, False

    def _see(self):
        return {"observation": {"state": self.state}}


def test_what_was_seen_stays_where_a_simulator_writes_over_it():
    played = OneBuffer().rollout(3)
    assert played["observation", "state"].flatten().tolist() == [0, 1, 2]
    assert played["next", "observation", "state"].flatten().tolist() == [1, 2, 3]
