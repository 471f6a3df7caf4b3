"""A chunked environment with the keys of this project, small enough to check by hand."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded, Categorical, Composite, NonTensor, Unbounded
from torchrl.envs import EnvBase

from rftf_torchrl.keys import CHUNK, TOKEN_MASK, TOKENS


class ChunkWalkEnv(EnvBase):
    """Walk right to ``goal``: a decision is a chunk of H moves, and stops where the goal is met.

    The state is (position, decisions so far), the position starts in [0, 1). Reaching the goal is
    success and termination, possibly inside a chunk; ``horizon`` decisions without it truncate.
    """

    def __init__(self, batch_size=(), *, chunk=3, goal=3.0, horizon=4, seed=0, strings=False):
        super().__init__(batch_size=torch.Size(batch_size), device="cpu")
        self.chunk, self.goal, self.horizon, self.strings = chunk, goal, horizon, strings
        batch = self.batch_size

        def boolean(*shape):
            return Categorical(2, shape=(*batch, *shape), dtype=torch.bool)

        self.observation_spec = Composite(
            observation=Composite(state=Unbounded((*batch, 2)), shape=batch),
            instruction=Composite(
                tokens=Unbounded((*batch, 4), dtype=torch.int64), mask=boolean(4), shape=batch
            ),
            success=boolean(1),
            crashed=boolean(1),
            executed=boolean(chunk),
            shape=batch,
        )
        if strings:
            self.observation_spec["language_instruction"] = NonTensor(
                shape=batch, example_data="walk right"
            )
        self.action_spec = Composite(
            vla_action=Composite(chunk=Bounded(-1, 1, (*batch, chunk, 1)), shape=batch), shape=batch
        )
        self.reward_spec = Unbounded((*batch, 1))
        self.full_done_spec = Composite(
            done=boolean(1), terminated=boolean(1), truncated=boolean(1), shape=batch
        )
        self.position = torch.zeros(*batch, 1)
        self.decisions = torch.zeros(*batch, 1)
        self._set_seed(seed)

    def _set_seed(self, seed):
        self.generator = torch.Generator().manual_seed(0 if seed is None else seed)

    def _data(self, **entries: Tensor) -> TensorDict:
        no = torch.zeros(*self.batch_size, 1, dtype=torch.bool)
        data = {
            "observation": {"state": torch.cat([self.position, self.decisions], -1)},
            TOKENS: torch.tensor([1, 2, 0, 0]).expand(*self.batch_size, 4).clone(),
            TOKEN_MASK: torch.tensor([True, True, False, False])
            .expand(*self.batch_size, 4)
            .clone(),
            "success": no,
            "crashed": no.clone(),
            "terminated": no.clone(),
            "truncated": no.clone(),
            "done": no.clone(),
            **entries,
        }
        data = TensorDict(data, self.batch_size)
        if self.strings:
            count = self.batch_size.numel()
            text = ["walk right"] * count
            data["language_instruction"] = text if self.batch_size else text[0]
        return data

    def _reset(self, tensordict=None, **kwargs):
        reset = None if tensordict is None else tensordict.get("_reset", None)
        if reset is None:
            reset = torch.ones(*self.batch_size, 1, dtype=torch.bool)
        reset = reset.reshape(*self.batch_size, 1)
        start = torch.rand(*self.batch_size, 1, generator=self.generator)
        self.position = torch.where(reset, start, self.position)
        self.decisions = torch.where(reset, 0.0, self.decisions)
        return self._data(executed=torch.zeros(*self.batch_size, self.chunk, dtype=torch.bool))

    def _step(self, tensordict):
        moves = tensordict[CHUNK].squeeze(-1)
        executed = torch.zeros_like(moves, dtype=torch.bool)
        for h in range(self.chunk):
            alive = self.position < self.goal
            executed[..., h] = alive.squeeze(-1)
            self.position = self.position + torch.where(alive, moves[..., h : h + 1], 0.0)
        self.decisions = self.decisions + 1
        success = self.position >= self.goal
        truncated = ~success & (self.decisions >= self.horizon)
        return self._data(
            executed=executed,
            success=success,
            terminated=success.clone(),
            truncated=truncated,
            done=success | truncated,
            reward=torch.full((*self.batch_size, 1), -7.0),
        )


class PositionValue(nn.Module):
    """V(state, tokens) = tanh(weight * position) + tokens' sum / 100; counts evaluated states."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.dropout = nn.Dropout(0.5)
        self.evaluated = 0

    def forward(self, state, tokens):
        self.evaluated += len(state)
        value = self.dropout(torch.tanh(self.weight * state[:, :1]))
        return value + tokens.sum(-1, keepdim=True) / 100


def value_model() -> TensorDictModule:
    return TensorDictModule(
        PositionValue(), in_keys=[("observation", "state"), TOKENS], out_keys=["temporal_value"]
    )


def walk_policy() -> TensorDictModule:
    """Random moves with a drift to the right: some episodes succeed, some run out of time."""

    def act(state):
        return torch.rand(*state.shape[:-1], 3, 1) * 1.2 - 0.4

    return TensorDictModule(act, in_keys=[("observation", "state")], out_keys=[CHUNK])
