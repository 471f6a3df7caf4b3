"""What describes a policy, and how the class that does is found by the name of its kind."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from tensordict.nn import ProbabilisticTensorDictSequential
from torchrl.envs.transforms import Transform

from rftf_torchrl.registry import Registry

POLICIES = Registry(
    "policy spec",
    "rftf_torchrl.policies",
    {
        "small": "rftf_torchrl.policies.small_spec:PolicySpec",
        "transformers": "rftf_torchrl.policies.transformers_vla.spec:TransformersPolicySpec",
        "lerobot": "rftf_torchrl.policies.lerobot.spec:LeRobotSpec",
        "gr_mg": "rftf_torchrl.paper_policies.gr_mg.spec:GRMGSpec",
        "seer": "rftf_torchrl.paper_policies.seer.spec:SeerSpec",
    },
    needs=("kind", "build", "to_dict", "from_dict", "observation_transform"),
)


class PolicySpecProtocol(Protocol):
    """What a class has to have for its policies to be saved, loaded and run by the recipes.

    A spec may have one member more, ``files: Mapping[str, bytes]``: what the policy needs besides
    weights, such as a tokenizer. It is saved beside the weights, and given to :meth:`from_dict` as
    its entry ``"files"``.

    A run makes the spec by its classmethod ``from_run(settings, sizes)`` and asks its classmethod
    ``problems(settings, sizes)``, where there are such; see :func:`policy_spec` and
    :func:`policy_problems`. With a method ``load(source)`` the policy starts from the weights of
    ``policy.pretrained``.

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


def spec_class(kind: str) -> type[PolicySpecProtocol]:
    """Find the class that describes a kind of policy.

    Args:
        kind: a name of the library's, one that an installed package offers in the group of entry
            points ``"rftf_torchrl.policies"``, or ``"module:Class"`` for a class of your own, whose
            attribute ``kind`` is that same string.

    Returns:
        The class.

    Raises:
        ValueError: where there is no such kind, or the class is none of a policy's.

    Example:
        >>> spec_class("small").__name__
        'PolicySpec'
    """
    found: type[PolicySpecProtocol] = POLICIES.find(kind)
    if found.kind != kind:
        raise ValueError(
            f"{kind} describes policies of the kind {found.kind!r}: give that name, or set the "
            f"class's attribute kind to {kind!r}."
        )
    return found
