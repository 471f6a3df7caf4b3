"""Demonstrations that a policy begins and an expert ends."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.data import Unbounded

from rftf_torchrl import (
    Recording,
    SimulatorCrashedError,
    Takeover,
    Task,
    derive_seed,
    keys,
    load_demonstrations,
)
from rftf_torchrl import record_demonstrations as record

TASK = Task(0, "right", "go to the right")


class Line:
    """A place on a line; right of 1 is success."""

    action_spec = Unbounded([1])

    def _seen(self):
        won = torch.tensor([self.place > 1])
        return TensorDict(
            {
                "observation": {"state": torch.tensor([self.place, 0.0])},
                "instruction": {
                    "tokens": torch.ones(1, dtype=torch.int64),
                    "mask": torch.ones(1, dtype=torch.bool),
                },
                "success": won,
                "done": won.clone(),
            }
        )

    def reset(self, tensordict):
        self.place = tensordict["episode_seed"].item() % 7 / 100
        return self._seen()

    def step(self, tensordict):
        self.place += tensordict["action"].item()
        return {"next": self._seen()}

    def close(self): ...


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def moving(speed, most=5):
    """A policy of chunks of two actions, and when it is taken over from."""
    policy = TensorDictModule(
        lambda state: torch.full((len(state), 2, 1), speed), [keys.STATE], [keys.CHUNK]
    )
    return Takeover(policy, 2, most)


def recorded(folder, takeover, per_task=8, line=Line):
    steps = record(
        Recording(Path(folder), per_task, 2, [TASK.name], takeover=takeover),
        [TASK],
        lambda task, split: line(),
        lambda task, seed: lambda env: (np.array([0.5]), np.array([0.5])),
        simulator="line",
        max_actions=20,
    )
    return load_demonstrations(folder), steps


def test_the_expert_goes_on_from_where_the_policy_went(tmp_path):
    takeover = moving(-0.125)
    demos, steps = recorded(tmp_path / "demos", takeover)
    train = [episode for episode in demos.episodes if episode.split == "train"]
    assert {episode.takeover > 0 for episode in train} == {True, False}
    actions = 0
    for number, episode in enumerate(train):
        seed = derive_seed(0, "demos", "train", number) % 2**31
        assert episode.takeover == takeover.decisions(seed)
        frames = demos.frames[episode.start : episode.stop]
        start = seed % 7 / 100 - 0.125 * 2 * episode.takeover
        torch.testing.assert_close(frames["observation", "state"][0, 0].item(), start)
        assert set(frames["action"][:-1].flatten().tolist()) == {0.5}
        actions += 2 * episode.takeover + len(episode) - 1
    held_out = [episode for episode in demos.episodes if episode.split == "test"]
    assert [episode.takeover for episode in held_out] == [0, 0], "they judge the value model"
    assert steps == actions + sum(len(episode) - 1 for episode in held_out)


def test_an_episode_whose_reset_crashes_is_left_out(tmp_path, caplog):
    bad = derive_seed(0, "demos", "train", 1) % 2**31

    class Fragile(Line):
        def reset(self, tensordict):
            if tensordict["episode_seed"].item() == bad:
                raise SimulatorCrashedError("there is no place for the cup")
            return super().reset(tensordict)

    demos, _ = recorded(tmp_path / "demos", None, line=Fragile)
    assert len(demos.episodes) == 10
    assert caplog.messages == [
        f"there is no place for the cup; the episode of seed {bad} is left out"
    ]


def test_the_policy_computes_in_one_thread_as_in_a_worker(tmp_path, two_threads):
    """On whose number last bits depend."""
    used = set()
    takeover = moving(-0.125)
    takeover.policy.register_forward_hook(lambda *_: used.add(torch.get_num_threads()))
    recorded(tmp_path / "demos", takeover)
    assert used == {1}
    assert torch.get_num_threads() == 2


def test_what_the_policy_does_alone_is_no_demonstration(tmp_path):
    demos, _ = recorded(tmp_path / "demos", moving(1.0))
    assert {episode.takeover for episode in demos.episodes} == {0}


def test_plain_demonstrations_have_the_index_that_they_had(tmp_path):
    demos, _ = recorded(tmp_path / "demos", None)
    index = json.loads((demos.root / "demonstrations.json").read_text(encoding="utf-8"))
    assert not any("takeover" in episode for episode in index["episodes"])


def test_a_policy_acts_in_half_of_the_episodes():
    takeover = moving(0.0, most=3)
    drawn = np.array([takeover.decisions(seed) for seed in range(4000)])
    assert 0.47 < (drawn == 0).mean() < 0.53
    assert set(drawn) == {0, 1, 2, 3}
