"""Trajectories, a collector and an environment with images, all small enough to check by hand."""

from __future__ import annotations

import torch
from _envs import ChunkWalkEnv
from tensordict import TensorDict
from tensordict.nn import TensorDictModule

from rftf_torchrl import EpisodeResult, keys
from rftf_torchrl.keys import CHUNK


def trajectory(values, *, success, index=0, task=0, chunk=None, state=0.0):
    """A trajectory whose T + 1 states have these values."""
    values = torch.as_tensor(values, dtype=torch.float32).unsqueeze(-1)
    steps = len(values) - 1
    done = torch.arange(steps).unsqueeze(-1) == steps - 1
    data = TensorDict(
        {
            "temporal_value": values[:-1],
            "task_id": torch.full((steps, 1), task),
            "observation": {"state": torch.full((steps, 2), float(state))},
            "collector": {"traj_ids": torch.full((steps,), index)},
            "next": {
                "temporal_value": values[1:],
                "success": done & success,
                "done": done,
                "crashed": torch.zeros_like(done),
            },
        },
        [steps],
    )
    if chunk is not None:
        data[CHUNK] = torch.as_tensor(chunk, dtype=torch.float32).expand(steps, -1, -1).clone()
    return data


class FakeCollector:
    """Plays trajectories that a function makes from (index, episode); None is a crash."""

    def __init__(self, play):
        self.play = play
        self.calls = []

    def collect(self, episodes, *, deterministic=False, seed=0, on_episode=None):
        self.calls.append((list(episodes), deterministic, seed))
        parts = []
        for index, episode in enumerate(episodes):
            part = self.play(index, episode)
            if part is None:
                continue
            part[keys.TRAJECTORY] = torch.full(part.batch_size, index)
            parts.append(part)
            if on_episode is not None:
                on_episode(EpisodeResult(index, part))
        return torch.cat(parts)


class PictureWalkEnv(ChunkWalkEnv):
    """The walk with seeded starts and an image whose brightness is the position."""

    closed = False

    def _reset(self, tensordict=None, **kwargs):
        out = super()._reset(None)
        seed = None if tensordict is None else tensordict.get("episode_seed", None)
        if seed is not None:
            self.position = torch.full((1,), seed.item() / 10)
            out["observation", "state"][0] = self.position.item()
        return out

    def picture(self, size):
        level = int(min(self.position.item() / 4, 1.0) * 255)
        return torch.full((3, size, size), level, dtype=torch.uint8)

    def close(self, **kwargs):
        self.closed = True
        super().close(**kwargs)


def constant_policy(move):
    """Always the same move, with batches of one or more."""
    return TensorDictModule(
        lambda state: torch.full((*state.shape[:-1], 3, 1), move),
        in_keys=[("observation", "state")],
        out_keys=[CHUNK],
    )
