"""A small vision-language-action policy, and what describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.fusion import EncoderConfig, HeadNetwork, VisionLanguageEncoder
from rftf_torchrl.policies.heads.actors import gaussian_actor, token_actor
from rftf_torchrl.policies.heads.arm_gripper import ARM_LOC, arm_gripper_actor
from rftf_torchrl.policies.heads.flow import flow_actor
from rftf_torchrl.policies.heads.flow_networks import ChunkVelocity
from rftf_torchrl.policies.settings import (
    Bins,
    HeadOptions,
    PolicyConfig,
    Sizes,
    options_without_effect,
)
from rftf_torchrl.settings import Count, check_value, make_settings, setting_problems

Head = Literal["gaussian", "arm_gripper", "tokens", "flow"]


@nested_keys
def small_vla(
    config: EncoderConfig,
    *,
    chunk_size: int,
    action_dim: int,
    head: Head = "gaussian",
    bins: int = 11,
    low: float = -1.0,
    high: float = 1.0,
    init_scale: float = 0.3,
    learn_scale: bool = True,
    scale_bounds: tuple[float, float] = (0.05, 1.0),
    flow_steps: int = 4,
    flow_level: float = 0.5,
    in_keys: Sequence[NestedKey] | None = None,
) -> ProbabilisticTensorDictSequential:
    """Builds a small vision-language-action policy that trains on a CPU.

    Args:
        config: sizes of the encoder.
        chunk_size: actions per chunk, H.
        action_dim: size of an action, A.
        head: ``"gaussian"`` (:func:`gaussian_actor`), ``"arm_gripper"``
            (:func:`arm_gripper_actor`, of which the last action dimension is the gripper's),
            ``"tokens"`` (:func:`token_actor`) or ``"flow"`` (:func:`flow_actor`).
        bins: bins of the token head.
        low: lower end of the token head's range.
        high: upper end of the token head's range.
        init_scale: initial standard deviation of the Gaussian head, or of the arm.
        learn_scale: whether it is learned.
        scale_bounds: its bounds.
        flow_steps: denoising steps of the flow head.
        flow_level: noise level of the flow head.
        in_keys: keys of the inputs that the config names, in its order; default
            ``config.in_keys``.

    Returns:
        The policy.

    Raises:
        ValueError: if the head is unknown.

    Examples:
        >>> config = EncoderConfig(image_size=None, state_dim=7)
        >>> actor = small_vla(config, chunk_size=4, action_dim=2)
        >>> actor.in_keys[0]
        ('observation', 'state')
    """
    inputs = list(config.in_keys if in_keys is None else in_keys)
    check_value("chunk_size", chunk_size, Count)
    check_value("action_dim", action_dim, Count)
    encoder = VisionLanguageEncoder(config)
    shape = (chunk_size, action_dim)
    sizes: Any = {"chunk_size": chunk_size, "action_dim": action_dim}
    if head == "flow":
        network = HeadNetwork(encoder, (config.features,))
        velocity = ChunkVelocity(config.features, shape)
        module = TensorDictModule(network, inputs, [keys.FEATURES])
        return flow_actor(module, velocity, steps=flow_steps, level=flow_level, **sizes)
    if head == "tokens":
        network = HeadNetwork(encoder, (*shape, bins), gain=0.1)
        module = TensorDictModule(network, inputs, [keys.LOGITS])
        return token_actor(module, bins=bins, low=low, high=high, **sizes)
    if head not in ("gaussian", "arm_gripper"):
        raise ValueError(
            f"head must be 'gaussian', 'arm_gripper', 'tokens' or 'flow', got {head!r}."
        )
    network = HeadNetwork(encoder, shape, gain=0.1)
    scale: Any = {
        "init_scale": init_scale,
        "learn_scale": learn_scale,
        "scale_bounds": scale_bounds,
    }
    if head == "gaussian":
        return gaussian_actor(TensorDictModule(network, inputs, [keys.LOC]), **sizes, **scale)
    module = TensorDictModule(_ArmGripper(network), inputs, [ARM_LOC, keys.LOGITS])
    return arm_gripper_actor(module, chunk_size=chunk_size, arm_dim=action_dim - 1, **scale)


class _ArmGripper(nn.Module):
    """Splits a network's last dimension into the arm's mean and the gripper's logit."""

    def __init__(self, network: HeadNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(*inputs)
        return found[..., :-1], found[..., -1]


@dataclass(frozen=True, kw_only=True)
class SmallOptions(HeadOptions):
    """``policy.options`` of ``policy.kind=small``, besides those of :class:`HeadOptions`.

    Attributes:
        head: ``"gaussian"``, ``"arm_gripper"`` (the gripper opens or closes by a probability of
            its own), ``"tokens"`` or ``"flow"``.
        bins: bins per action dimension of the token head.
        channels: output channels of the image encoder's convolutions.
        features: width of the trunk.
        state_features: features of the state.
        film: whether the instruction modulates the trunk (FiLM) besides being one of its inputs.
        attend_objects: whether the instruction attends to objects that the state holds
            (:class:`ObjectEncoder`); without effect where it holds none.
    """

    head: Head = "gaussian"
    bins: Bins = 11
    channels: tuple[Count, Count, Count] = (16, 32, 32)
    features: Count = 256
    state_features: Count = 64
    film: bool = False
    attend_objects: bool = False


@dataclass(frozen=True)
class PolicySpec(HeadOptions):
    """Everything that decides a small policy's architecture, besides :class:`HeadOptions`.

    Attributes:
        encoder: sizes of the encoder.
        chunk_size: actions per chunk.
        action_dim: size of an action.
        head: ``"gaussian"``, ``"arm_gripper"``, ``"tokens"`` or ``"flow"``.
        bins: bins of the token head.

    Example:
        >>> spec = PolicySpec(EncoderConfig(image_size=None, state_dim=3), 2, 4)
        >>> PolicySpec.from_dict(spec.to_dict()) == spec
        True
    """

    kind: ClassVar[str] = "small"
    Options: ClassVar[type] = SmallOptions

    encoder: EncoderConfig
    chunk_size: int
    action_dim: int
    head: Head = "gaussian"
    bins: int = 11

    @classmethod
    def problems(cls, settings: PolicyConfig, sizes: Sizes) -> list[str]:
        """What is wrong with a run's settings."""
        problems = setting_problems(SmallOptions, settings.options, "policy.options.")
        problems += options_without_effect(SmallOptions, settings.options)
        if settings.pretrained:
            problems.append("policy.pretrained has no effect on policy.kind=small")
        return problems

    @classmethod
    def from_run(cls, settings: PolicyConfig, sizes: Sizes) -> PolicySpec:
        """The spec of a run's policy."""
        options = asdict(make_settings(SmallOptions, settings.options, "policy.options."))
        parts = ("channels", "features", "state_features", "film")
        encoder = EncoderConfig(
            image_size=sizes.image_size,
            state_dim=sizes.state_dim,
            objects=sizes.objects if options.pop("attend_objects") else (),
            **{name: options.pop(name) for name in parts},
        )
        return cls(encoder, sizes.chunk_size, sizes.action_dim, **options)

    def build(self) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights; the token head's outer bins lie on -1 and 1."""
        edge = self.bins / (self.bins - 1)
        values = {**vars(self), "low": -edge, "high": edge}
        return small_vla(values.pop("encoder"), **values)

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {**asdict(self), "encoder": self.encoder.to_dict()}

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> PolicySpec:
        """The spec that :meth:`to_dict` described."""
        return cls(**{**spec, "encoder": EncoderConfig.from_dict(spec["encoder"])})

    def observation_transform(self) -> None:
        """Nothing: the policy reads what the environments write."""
