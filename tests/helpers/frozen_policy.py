"""A policy of one's own with a frozen tower, which counts how often it runs."""

from dataclasses import asdict, dataclass
from typing import ClassVar

from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn

from rftf_torchrl import FrozenFeatures, gaussian_actor, keys


class Tower(nn.Linear):
    rows: ClassVar[list[int]] = []

    def forward(self, state):
        Tower.rows.append(state[..., 0].numel())
        return super().forward(state).tanh()


@dataclass(frozen=True)
class FrozenSpec:
    kind: ClassVar[str] = "frozen_policy:FrozenSpec"

    chunk_size: int
    action_dim: int
    state_dim: int

    def build(self):
        tower = TensorDictModule(Tower(self.state_dim, 8), [keys.STATE], ["seen"])
        head = nn.Sequential(
            nn.Linear(8, self.chunk_size * self.action_dim),
            nn.Unflatten(-1, (self.chunk_size, self.action_dim)),
        )
        network = TensorDictSequential(
            FrozenFeatures(tower), TensorDictModule(head, ["seen"], [keys.LOC])
        )
        return gaussian_actor(network, chunk_size=self.chunk_size, action_dim=self.action_dim)

    def to_dict(self):
        return asdict(self)

    @classmethod
    def from_dict(cls, spec):
        return cls(**spec)

    def observation_transform(self):
        return None
