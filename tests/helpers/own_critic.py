"""Critics of a user's own, good and bad."""

from tensordict.nn import TensorDictModule
from torch import nn


def linear(policy, spec, sizes):
    """Reads the state alone."""
    network = nn.Linear(sizes.state_dim, 1)
    return TensorDictModule(network, in_keys=[("observation", "state")], out_keys=["state_value"])


def elsewhere(policy, spec, sizes):
    network = nn.Linear(sizes.state_dim, 1)
    return TensorDictModule(network, in_keys=[("observation", "state")], out_keys=["value"])


def bare(policy, spec, sizes):
    return nn.Linear(sizes.state_dim, 1)


def wide(policy, spec, sizes):
    network = nn.Linear(sizes.state_dim, 2)
    return TensorDictModule(network, in_keys=[("observation", "state")], out_keys=["state_value"])


class Sharing(nn.Module):
    def __init__(self, policy):
        super().__init__()
        self.shared = next(policy.parameters())

    def forward(self, state):
        return state.mean(-1, keepdim=True) * self.shared.mean()


def sharing(policy, spec, sizes):
    """Trains a parameter of the policy."""
    keys = {"in_keys": [("observation", "state")], "out_keys": ["state_value"]}
    return TensorDictModule(Sharing(policy), **keys)
