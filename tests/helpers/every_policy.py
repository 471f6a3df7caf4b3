"""Every kind of policy of ours and of TorchRL's that has a distribution, at tiny sizes."""

import torch
from tensordict import NonTensorStack, TensorDict
from tensordict.nn import (
    CompositeDistribution,
    InteractionType,
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictModuleBase,
)
from torch import distributions, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import (
    IndependentNormal,
    NormalParamExtractor,
    OneHotCategorical,
    TanhNormal,
    TruncatedNormal,
)
from torchrl.modules.vla import TinyVLA

from rftf_torchrl import (
    ChunkVelocity,
    FlowNoise,
    arm_gripper_actor,
    flow_actor,
    gaussian_actor,
    token_actor,
)

H, A = 3, 2


def _network(outputs, *shape, key):
    layers = [nn.Linear(5, outputs), nn.Unflatten(-1, shape)] if shape else [nn.Linear(5, outputs)]
    return TensorDictModule(nn.Sequential(*layers), ["state"], [key])


def _gaussian():
    return gaussian_actor(_network(H * A, H, A, key="loc"), chunk_size=H, action_dim=A)


def _tokens():
    network = _network(H * A * 4, H, A, 4, key="logits")
    return token_actor(network, chunk_size=H, action_dim=A, bins=4)


class _ArmAndGripper(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, H * A)

    def forward(self, state):
        out = self.layer(state).unflatten(-1, (H, A))
        return out[..., :-1], out[..., -1]


def _arm_gripper():
    network = TensorDictModule(_ArmAndGripper(), ["state"], ["arm_loc", "logits"])
    return arm_gripper_actor(network, chunk_size=H, arm_dim=A - 1)


def _flow(learned=False):
    noise = FlowNoise(8, (H, A), 4) if learned else None
    velocity = ChunkVelocity(8, (H, A), width=8)
    network = _network(8, key="features")
    return flow_actor(network, velocity, chunk_size=H, action_dim=A, noise=noise)


def _stock(kind, parameters=("loc", "scale"), *, outputs=A, options=None):
    last = [NormalParamExtractor()] if len(parameters) == 2 else []
    network = nn.Sequential(nn.Linear(5, outputs * len(parameters)), *last)
    return ProbabilisticTensorDictSequential(
        TensorDictModule(network, ["state"], list(parameters)),
        ProbabilisticTensorDictModule(
            list(parameters),
            ["action"],
            distribution_class=kind,
            distribution_kwargs=options or {},
            return_log_prob=True,
            default_interaction_type=InteractionType.RANDOM,
        ),
    )


class TwoBumps(distributions.MixtureSameFamily):
    """Two normals of equal weight, the second `gap` to the right of the first."""

    def __init__(self, loc, scale, gap=1.0):
        parts = distributions.Normal(
            torch.stack([loc, loc + gap], -2), torch.stack([scale, scale], -2)
        )
        weights = torch.zeros(*loc.shape[:-1], 2, device=loc.device)
        super().__init__(
            distributions.Categorical(logits=weights), distributions.Independent(parts, 1)
        )


def _composite():
    moves = TensorDictModule(
        nn.Sequential(nn.Linear(5, 2 * A), NormalParamExtractor()),
        ["state"],
        [("params", "move", "loc"), ("params", "move", "scale")],
    )
    grips = TensorDictModule(nn.Linear(5, 3), ["state"], [("params", "grip", "logits")])
    heads = {"move": IndependentNormal, "grip": distributions.Categorical}
    return ProbabilisticTensorDictSequential(
        moves,
        grips,
        ProbabilisticTensorDictModule(
            ["params"],
            ["move", "grip"],
            distribution_class=CompositeDistribution,
            distribution_kwargs={"distribution_map": heads},
            return_log_prob=True,
            default_interaction_type=InteractionType.RANDOM,
        ),
    )


def _tiny_vla(mode="sequence"):
    return TinyVLA(
        action_dim=A, chunk_size=H, action_head="tokens", vocab_size=4, log_probs_mode=mode
    )


class GetDistAlone(TensorDictModuleBase):
    """A policy of somebody's own: in_keys, forward and get_dist, and nothing else."""

    in_keys = ["state"]  # noqa: RUF012
    out_keys = ["action", "action_log_prob"]  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, A)

    def get_dist(self, tensordict):
        loc = self.layer(tensordict["state"])
        return IndependentNormal(loc, torch.ones_like(loc))

    def forward(self, tensordict):
        distribution = self.get_dist(tensordict)
        tensordict["action"] = distribution.sample()
        tensordict["action_log_prob"] = distribution.log_prob(tensordict["action"])
        return tensordict


POLICIES = {
    "gaussian": _gaussian,
    "tokens": _tokens,
    "arm_gripper": _arm_gripper,
    "flow": _flow,
    "flow_learned_noise": lambda: _flow(learned=True),
    "stock_normal": lambda: _stock(IndependentNormal),
    "stock_normal_per_dimension": lambda: _stock(distributions.Normal),
    "stock_tanh_normal": lambda: _stock(TanhNormal),
    "stock_truncated_normal": lambda: _stock(TruncatedNormal),
    "stock_one_hot": lambda: _stock(OneHotCategorical, ("logits",), outputs=4),
    "stock_mixture": lambda: _stock(TwoBumps),
    "stock_composite": _composite,
    "tiny_vla": _tiny_vla,
    "tiny_vla_per_token": lambda: _tiny_vla("token"),
    "get_dist_alone": GetDistAlone,
}

# Of these torch has no divergence, or the data cannot hold the distribution: it is estimated.
ESTIMATED = {"stock_truncated_normal", "stock_mixture", "get_dist_alone"}


def states(count):
    return TensorDict(
        {
            "state": torch.randn(count, 5),
            "observation": {
                "image": torch.randint(255, (count, 3, 16, 16), dtype=torch.uint8),
                "state": torch.randn(count, 5),
            },
            "language_instruction": NonTensorStack(*("push", "pull") * (count // 2)),
        },
        [count],
    )


def every_policy(name):
    """A policy with its weights made."""
    actor = POLICIES[name]()
    with torch.no_grad():
        actor(states(2))
    return actor


@torch.no_grad()
def decide(actor, count=8):
    """Decisions with advantages, ready for a loss."""
    with set_exploration_type(ExplorationType.RANDOM):
        data = actor(states(count))
    data["advantage"] = torch.randn(count, 1)
    return data
