"""A robot arm without physics that gives CALVIN's keys, for policies with a history."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torchrl.data import Binary, Bounded, Composite, NonTensor, Unbounded
from torchrl.envs import EnvBase

from rftf_torchrl.keys import CHUNK, IMAGE, STATE, WRIST_IMAGE


class ArmEnv(EnvBase):
    """Images show the number of the decision; the state moves by what is commanded."""

    def __init__(self, *, chunk=1, size=32, wrist=True, horizon=5, state_dim=11, arm_dim=6):
        super().__init__()
        self.chunk, self.size, self.wrist, self.horizon = chunk, size, wrist, horizon
        self.state_dim, self.arm_dim = state_dim, arm_dim
        self.commands = []
        self.sentence = "lift the red block"
        picture = Bounded(0, 255, shape=[3, size, size], dtype=torch.uint8)
        observation = {"state": Unbounded([state_dim]), "image": picture}
        if wrist:
            observation["wrist_image"] = picture.clone()
        flag = Binary(shape=[1], dtype=torch.bool)
        self.observation_spec = Composite(
            observation=Composite(observation),
            language_instruction=NonTensor(shape=[], example_data="a"),
            task_id=Unbounded([1], dtype=torch.int64),
            episode_seed=Unbounded([1], dtype=torch.int64),
            success=flag.clone(),
            crashed=flag.clone(),
            executed=Binary(shape=[chunk], dtype=torch.bool),
        )
        self.state_spec = Composite(episode_seed=Unbounded([1], dtype=torch.int64))
        self.action_spec = Composite(
            vla_action=Composite(chunk=Bounded(-1.0, 1.0, shape=[chunk, arm_dim + 1]))
        )
        self.reward_spec = Unbounded([1])
        self.done_spec = Composite(done=flag, terminated=flag.clone(), truncated=flag.clone())
        self.count, self.seed = 0, 0

    def _set_seed(self, seed):
        self.seed = seed or 0

    def _look(self, **flags):
        picture = torch.full((3, self.size, self.size), self.seed + self.count, dtype=torch.uint8)
        no = torch.zeros(1, dtype=torch.bool)
        data = {
            IMAGE: picture,
            STATE: torch.sin(torch.arange(self.state_dim) + self.seed + 0.1 * self.count),
            "task_id": torch.tensor([3]),
            "episode_seed": torch.tensor([self.seed]),
            "success": no,
            "crashed": no.clone(),
            "executed": torch.ones(self.chunk, dtype=torch.bool),
            **flags,
        }
        if self.wrist:
            data[WRIST_IMAGE] = picture + 100
        data = TensorDict(data)
        data["language_instruction"] = self.sentence
        return data

    def _reset(self, tensordict=None, **kwargs):
        wanted = None if tensordict is None else tensordict.get("episode_seed", None)
        self.seed = self.seed if wanted is None else int(wanted)
        self.count = 0
        return self._look()

    def continue_chain(self, task, instruction=None):
        self.sentence = instruction or task
        self.count = 0
        return self._look().update(self.full_done_spec.zero())

    def _step(self, tensordict):
        self.commands.append(tensordict[CHUNK].clone())
        self.count += 1
        done = torch.tensor([self.count >= self.horizon])
        no = torch.zeros(1, dtype=torch.bool)
        return self._look(
            reward=torch.zeros(1), done=done, truncated=done.clone(), terminated=no.clone()
        )
