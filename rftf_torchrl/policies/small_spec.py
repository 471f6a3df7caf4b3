"""What describes a small policy, and the options that a run gives it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tensordict.nn import ProbabilisticTensorDictSequential

from rftf_torchrl.nets.fusion import EncoderConfig
from rftf_torchrl.policies.heads.options import Bins, HeadOptions
from rftf_torchrl.policies.settings import PolicyConfig, Sizes
from rftf_torchrl.policies.small_vla import Head, small_vla
from rftf_torchrl.settings import Count, make_settings, setting_problems


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
    """

    head: Head = "gaussian"
    bins: Bins = 11
    channels: tuple[Count, Count, Count] = (16, 32, 32)
    features: Count = 256
    state_features: Count = 64
    film: bool = False


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

    encoder: EncoderConfig
    chunk_size: int
    action_dim: int
    head: Head = "gaussian"
    bins: int = 11

    @classmethod
    def problems(cls, settings: PolicyConfig, sizes: Sizes) -> list[str]:
        """What is wrong with a run's settings."""
        problems = setting_problems(SmallOptions, settings.options, "policy.options.")
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
