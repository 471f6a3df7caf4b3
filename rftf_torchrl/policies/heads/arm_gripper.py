"""Policies over chunks of an arm's continuous action and a gripper that is open or closed."""

from __future__ import annotations

from functools import partial

import torch
from tensordict.nn import (
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictModuleBase,
)
from tensordict.utils import NestedKey
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence, register_kl
from torch.nn.functional import logsigmoid

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.finite_output import can_be_read, check_finite_output
from rftf_torchrl.policies.heads.actors import BoundedScale, check_writes, draw_chunk
from rftf_torchrl.policies.heads.distributions import ChunkDistribution, ChunkNormal, sum_executed
from rftf_torchrl.settings import Count, check_value

# Not "loc": there is more to the chunk than that. But TorchRL's BCLoss takes a policy for a
# deterministic one, without a warning, unless it writes one of "loc", "scale", "logits", "probs".
ARM_LOC = "arm_loc"
ARM_SCALE = "arm_scale"


def opened_gripper(
    gripper: Tensor, counted: Tensor | None = None, threshold: float | None = None
) -> Tensor:
    """Which grippers of some actions are open.

    Args:
        gripper: the last number of each action, float [...].
        counted: bool [...], which actions are real; None for all.
        threshold: the least number that is open; None takes 1 as open, -1 as closed, and no other.

    Returns:
        bool [...].

    Raises:
        ValueError: naming the numbers that are neither.

    Example:
        >>> opened_gripper(torch.tensor([1.0, -1.0])), opened_gripper(torch.tensor(0.6), None, 0.3)
        (tensor([ True, False]), tensor(True))
    """
    if threshold is not None:
        return gripper >= threshold
    strange = gripper.abs() != 1
    if counted is not None:
        strange = strange & counted
    if can_be_read(strange) and bool(strange.any()):
        seen = gripper.detach()[strange].unique().tolist()
        listed = ", ".join(f"{value:g}" for value in seen[:5]) + ", ..." * (len(seen) > 5)
        raise ValueError(
            f"the gripper, the last number of an action, is {listed} in {int(strange.sum())} of "
            f"{strange.numel()} actions, expected 1 or -1, as the simulator takes them. Write "
            "these two into the data, or say from which number on it counts as 1: "
            "gripper_threshold of ArmGripperCloningLoss, cloning.gripper_threshold of a run."
        )
    return gripper > 0


class ChunkNormalBernoulli(ChunkDistribution):
    r"""A chunk whose arm is normal and whose gripper is 1 (open) or -1 (closed).

    .. math::
        \log \pi(a) = \sum_{h : \mathrm{executed}_h} \Big( \sum_d \log N(a_{hd}; \mu_{hd},
        \sigma_{hd}) + \log \mathrm{sigmoid}(g_h \ell_h) \Big), \qquad g_h \in \{1, -1\}

    Actions that were never executed enter neither log-probability, entropy nor divergence. All
    three are float32. A chunk whose gripper is neither 1 nor -1 has no probability here.

    Args:
        loc: mean of the arm, float [*B, H, D], D = A - 1.
        scale: standard deviation of the arm, float [*B, H, D], positive.
        logits: of an open gripper, float [*B, H].
        executed: bool [*B, H]; None counts every action.

    Raises:
        ValueError: if the shapes do not fit; of ``log_prob``, at another gripper.

    Examples:
        >>> dist = ChunkNormalBernoulli(torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2))
        >>> chunk = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, -1.0]])
        >>> round(float(dist.log_prob(chunk)), 4)  # 6 * -0.9189 + 2 * log(1/2)
        -6.8999
    """

    def __init__(
        self, loc: Tensor, scale: Tensor, logits: Tensor, executed: Tensor | None = None
    ) -> None:
        if logits.shape != loc.shape[:-1]:
            raise ValueError(
                f"logits must have the shape of loc without its last dimension, "
                f"{tuple(loc.shape[:-1])}, got {tuple(logits.shape)}."
            )
        self.arm = ChunkNormal(loc, scale, executed)
        self.gripper = Bernoulli(logits=logits.float(), validate_args=False)
        self.executed = executed
        event = torch.Size((loc.shape[-2], loc.shape[-1] + 1))
        super().__init__(loc.shape[:-2], event, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The expected chunk, [*B, H, A]."""
        return _joined(self.arm.mean, 2 * self.gripper.probs - 1)

    @property
    def mode(self) -> Tensor:
        """The most probable chunk, [*B, H, A]; the gripper is closed where both are as likely."""
        return _joined(self.arm.mode, _sign(self.gripper.probs > 0.5))

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Samples chunks [*sample_shape, *B, H, A]."""
        shape = torch.Size(sample_shape)
        return _joined(self.arm.sample(shape), _sign(self.gripper.sample(shape) > 0.5))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-probability [*B] of chunks [*B, H, A]."""
        opened = opened_gripper(value[..., -1], self.executed)
        gripper = self.gripper.log_prob(opened.float())
        return self.arm.log_prob(value[..., :-1]) + sum_executed(gripper, self.executed)

    def entropy(self) -> Tensor:
        """Returns the entropy [*B]."""
        return self.arm.entropy() + sum_executed(self.gripper.entropy(), self.executed)


@register_kl(ChunkNormalBernoulli, ChunkNormalBernoulli)
def _kl_normal_bernoulli(p: ChunkNormalBernoulli, q: ChunkNormalBernoulli) -> Tensor:
    gripper = _kl_of_logits(p.gripper.logits, q.gripper.logits)
    return kl_divergence(p.arm, q.arm) + sum_executed(gripper, p.executed)


def _kl_of_logits(p: Tensor, q: Tensor) -> Tensor:
    """Of Bernoullis; torch's divergence is infinite where a probability rounds to 0 or 1."""
    opened = torch.sigmoid(p) * (logsigmoid(p) - logsigmoid(q))
    return opened + torch.sigmoid(-p) * (logsigmoid(-p) - logsigmoid(-q))


@nested_keys
def arm_gripper_actor(
    network: TensorDictModuleBase,
    *,
    chunk_size: int,
    arm_dim: int,
    init_scale: float = 0.1,
    learn_scale: bool = True,
    scale_bounds: tuple[float, float] = (0.02, 1.0),
    **places: NestedKey,
) -> ProbabilisticTensorDictSequential:
    """Makes a policy from a network that predicts an arm's mean and the logit of an open gripper.

    The policy writes ``"arm_scale"`` [*B, H, arm_dim], the chunk [*B, H, arm_dim + 1], whose last
    entry is 1 or -1, and its log-probability [*B]. TorchRL's ``ExplorationType.MEAN`` would write
    an expected gripper, which is no action: use ``DETERMINISTIC`` or ``MODE``.

    Args:
        network: a TensorDict module that writes ``"arm_loc"`` [*B, H, arm_dim] and
            ``"logits"`` [*B, H].
        chunk_size: actions per chunk, H.
        arm_dim: size of the arm's action.
        init_scale: initial standard deviation of the arm.
        learn_scale: whether it is learned.
        scale_bounds: its smallest and largest value.
        **places: ``chunk_key``, ``log_prob_key``, where the two go, and ``executed_key``, where the
            data tell which actions were executed, bool [*B, H].

    Returns:
        The policy, as collectors and :class:`torchrl.objectives.ClipPPOLoss` take it.

    Raises:
        ValueError: if the network does not write both, or ``arm_dim`` is below 1.
        FloatingPointError: on use, if a mean, a standard deviation or a logit is not finite.

    Examples:
        >>> from tensordict import TensorDict
        >>> network = TensorDictModule(
        ...     lambda x: (x.new_zeros(5, 4, 2), x.new_zeros(5, 4)),
        ...     in_keys=["x"],
        ...     out_keys=["arm_loc", "logits"],
        ... )
        >>> actor = arm_gripper_actor(network, chunk_size=4, arm_dim=2)
        >>> actor(TensorDict({"x": torch.zeros(5)}, [5]))["vla_action", "chunk"].shape
        torch.Size([5, 4, 3])
    """
    check_writes(network, ARM_LOC, keys.LOGITS)
    check_value("arm_dim", arm_dim, Count)
    scale = BoundedScale(
        (chunk_size, arm_dim), init=init_scale, bounds=scale_bounds, learn=learn_scale
    )
    return ProbabilisticTensorDictSequential(
        network,
        TensorDictModule(scale, in_keys=[ARM_LOC], out_keys=[ARM_SCALE]),
        TensorDictModule(
            partial(check_finite_output, what="gripper logits"), [keys.LOGITS], [keys.LOGITS]
        ),
        draw_chunk(
            ChunkNormalBernoulli,
            {"loc": ARM_LOC, "scale": ARM_SCALE, "logits": keys.LOGITS},
            **places,
        ),
    )


def _joined(arm: Tensor, gripper: Tensor) -> Tensor:
    return torch.cat((arm, gripper[..., None]), dim=-1)


def _sign(opened: Tensor) -> Tensor:
    return 2 * opened.float() - 1
