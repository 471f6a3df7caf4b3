"""A policy with blocks, a critic and decisions, for the tests of training that fits."""

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import gaussian_actor, keys

H, A = 3, 2


class Blocks(nn.Module):
    def __init__(self, width=6, depth=3, outputs=H * A):
        super().__init__()
        self.inner = nn.Linear(5, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth)
        )
        self.outer = nn.Linear(width, outputs)

    def forward(self, state):
        hidden = self.inner(state)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.outer(hidden)


class Mean(Blocks):
    def forward(self, state):
        return super().forward(state).unflatten(-1, (H, A))


def policy():
    network = TensorDictModule(Mean(), ["state"], [keys.LOC])
    return gaussian_actor(network, chunk_size=H, action_dim=A)


def critic():
    return TensorDictModule(Blocks(outputs=1), ["state"], [keys.STATE_VALUE])


@torch.no_grad()
def decisions(actor, count):
    data = actor(TensorDict({"state": torch.randn(count, 5)}, [count]))
    data["advantage"] = 3 * torch.randn(count, 1) + 1
    data["value_target"] = torch.randn(count, 1)
    data[keys.EXECUTED] = torch.rand(count, H) < 0.8
    data[keys.LOG_PROB] = actor.get_dist(data.copy()).log_prob(data[keys.CHUNK])
    return data


def moved(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module


def gradients(module):
    return {name: value.grad.clone() for name, value in module.named_parameters()}


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith("loss_"))
