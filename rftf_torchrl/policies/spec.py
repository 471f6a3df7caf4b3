"""What describes a policy, and the table of the kinds that the library knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, ClassVar, Literal, Protocol

from tensordict.nn import ProbabilisticTensorDictSequential
from torchrl.envs.transforms import Transform

from rftf_torchrl.nets.fusion import EncoderConfig
from rftf_torchrl.policies.small_vla import small_vla

_KINDS: Mapping[str, str] = {
    "small": "rftf_torchrl.policies.spec:PolicySpec",
    "transformers": "rftf_torchrl.policies.transformers_vla.spec:TransformersPolicySpec",
    "lerobot": "rftf_torchrl.policies.lerobot.spec:LeRobotSpec",
    "gr_mg": "rftf_torchrl.paper_policies.gr_mg.spec:GRMGSpec",
    "seer": "rftf_torchrl.paper_policies.seer.spec:SeerSpec",
}


class PolicySpecProtocol(Protocol):
    """What a class has to have for its policies to be saved, loaded and run by the recipes.

    A spec may have one member more, ``files: Mapping[str, bytes]``: what the policy needs besides
    weights, such as a tokenizer. It is saved beside the weights, and given to :meth:`from_dict` as
    its entry ``"files"``.

    Attributes:
        kind: a name of the library's, or ``"module:Class"``, where Python finds the class.
    """

    kind: ClassVar[str]

    def build(self) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights; nothing is downloaded."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        ...

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> PolicySpecProtocol:
        """The spec that :meth:`to_dict` described."""
        ...

    def observation_transform(self) -> Transform | None:
        """Turns raw observations into what the policy reads; None where it reads them as they are.

        It works on environments, and by ``forward`` on batches of demonstrations. It reads the
        sentence from ``"language_instruction"``.
        """
        ...


@dataclass(frozen=True)
class PolicySpec:
    """Everything that decides a small policy's architecture.

    Attributes:
        encoder: sizes of the encoder.
        chunk_size: actions per chunk.
        action_dim: size of an action.
        head: ``"gaussian"``, ``"arm_gripper"``, ``"tokens"`` or ``"flow"``.
        bins: bins of the token head.
        init_scale: initial standard deviation of the Gaussian head, or of the arm.
        learn_scale: whether it is learned.
        flow_steps: denoising steps of the flow head.
        flow_level: noise level of the flow head, see :func:`flow_actor`.

    Example:
        >>> spec = PolicySpec(EncoderConfig(image_size=None, state_dim=3), 2, 4)
        >>> PolicySpec.from_dict(spec.to_dict()) == spec
        True
    """

    kind: ClassVar[str] = "small"

    encoder: EncoderConfig
    chunk_size: int
    action_dim: int
    head: Literal["gaussian", "arm_gripper", "tokens", "flow"] = "gaussian"
    bins: int = 11
    init_scale: float = 0.3
    learn_scale: bool = True
    flow_steps: int = 4
    flow_level: float = 0.5

    def build(self) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights; the token head's outer bins lie on -1 and 1."""
        edge = self.bins / (self.bins - 1)
        return small_vla(
            self.encoder,
            chunk_size=self.chunk_size,
            action_dim=self.action_dim,
            head=self.head,
            bins=self.bins,
            low=-edge,
            high=edge,
            init_scale=self.init_scale,
            learn_scale=self.learn_scale,
            flow_steps=self.flow_steps,
            flow_level=self.flow_level,
        )

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {**asdict(self), "encoder": self.encoder.to_dict()}

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> PolicySpec:
        """The spec that :meth:`to_dict` described."""
        return cls(**{**spec, "encoder": EncoderConfig.from_dict(spec["encoder"])})

    def observation_transform(self) -> None:
        """Nothing: the policy reads what the environments write."""


def spec_class(kind: str) -> type[PolicySpecProtocol]:
    """Find the class that describes a kind of policy.

    Args:
        kind: a name of the library's, or ``"module:Class"`` for a class of your own, whose
            attribute ``kind`` is that same string.

    Returns:
        The class.

    Raises:
        ValueError: where there is no such kind, or the class is none of a policy's.

    Example:
        >>> spec_class("small").__name__
        'PolicySpec'
    """
    place = _KINDS.get(kind, kind)
    module, _, name = place.partition(":")
    if not name:
        raise ValueError(
            f"unknown kind of policy {kind!r}: choose from {', '.join(_KINDS)}, or give the place "
            "of your own class as 'module:Class'."
        )
    try:
        found = getattr(import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            f"no class at {place!r} for policies of the kind {kind!r} ({error}): make it "
            "importable, for example by its folder in PYTHONPATH."
        ) from error
    if getattr(found, "kind", None) != kind:
        raise ValueError(
            f"{place!r} is not the spec of a policy: its attribute kind is "
            f"{getattr(found, 'kind', None)!r}, expected {kind!r}."
        )
    return found
