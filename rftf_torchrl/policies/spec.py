"""What describes a policy: by the name of its kind, and from the settings of a run."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from inspect import signature
from typing import Any, ClassVar, Protocol, cast

from tensordict.nn import ProbabilisticTensorDictSequential
from torchrl.envs.transforms import Transform

from rftf_torchrl.policies.settings import PolicyConfig, Sizes
from rftf_torchrl.registry import Registry
from rftf_torchrl.settings import unknown_settings

POLICIES = Registry(
    "policy spec",
    "rftf_torchrl.policies",
    {
        "small": "rftf_torchrl.policies.small_vla:PolicySpec",
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
    ``policy.pretrained``. With an attribute ``pretrained_on`` that is looked for before a
    run begins: on ``"disk"``, or else on the ``"hub"``. A spec of another library's policies has
    methods ``export(policy, folder, source)``, see :func:`export_policy`, and
    ``compare_with_native(policy, source, sentences, image_size)``, see
    :func:`compare_with_native`.

    Attributes:
        kind: a name of the library's, or ``"module:Class"``, where Python finds the class.
    """

    kind: ClassVar[str]

    def build(self) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights; nothing is downloaded."""

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold."""

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> PolicySpecProtocol:
        """The spec that :meth:`to_dict` described."""

    def observation_transform(self) -> Transform | None:
        """Turns raw observations into what the policy reads; None where it reads them as they are.

        It works on environments, and by ``forward`` on batches of demonstrations. It reads the
        instruction from ``"language_instruction"``.
        """


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


def policy_spec(settings: PolicyConfig, sizes: Sizes) -> PolicySpecProtocol:
    """Describe a run's policy; of a pretrained one, the files are read.

    A spec with a classmethod ``from_run(settings, sizes)`` says itself how it is made. Every other
    gets the options and, where it takes them, ``chunk_size``, ``action_dim``, ``state_dim``,
    ``robot``, ``wrist`` and ``objects`` (see :class:`Sizes`): by its ``from_pretrained(source,
    **entries)`` where ``settings.pretrained`` is set and it has one, by ``from_dict`` else.

    Args:
        settings: the run's, without problems.
        sizes: of the run's environment.

    Returns:
        The spec.

    Raises:
        ValueError: where the kind is unknown, or its spec refuses the sizes.

    Example:
        >>> sizes = Sizes(2, None, wrist=False, robot="my_sim", state_dim=3, action_dim=4)
        >>> policy_spec(PolicyConfig(options={"head": "flow"}), sizes).head
        'flow'
    """
    spec: Any = spec_class(settings.kind)
    if hasattr(spec, "from_run"):
        return cast(PolicySpecProtocol, spec.from_run(settings, sizes))
    entries = asdict(sizes)
    del entries["image_size"]
    taken = signature(spec).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        entries = {name: value for name, value in entries.items() if name in taken}
    entries |= settings.options
    if settings.pretrained and hasattr(spec, "from_pretrained"):
        return cast(PolicySpecProtocol, spec.from_pretrained(settings.pretrained, **entries))
    return cast(PolicySpecProtocol, spec.from_dict(entries))


def policy_problems(settings: PolicyConfig, sizes: Sizes) -> list[str]:
    """List what is wrong with the settings of a run's policy.

    A spec with a classmethod ``problems(settings, sizes)`` lists its own. Of every other that is a
    dataclass, the options have to be fields.

    Args:
        settings: the run's.
        sizes: of the run's environment, as far as they are known.

    Returns:
        One line for each problem.

    Example:
        >>> sizes = Sizes(2, image_size=None, wrist=False, robot="my_sim")
        >>> policy_problems(PolicyConfig(options={"head": "tokens", "bins": 1}), sizes)
        ['policy.options.bins=1: must be at least 2']
    """
    try:
        spec: Any = spec_class(settings.kind)
    except ValueError as error:
        return [f"policy.kind: {error}", *_adapter_problems(settings, large=False)]
    if hasattr(spec, "problems"):
        problems: list[str] = spec.problems(settings, sizes)
    elif is_dataclass(spec):
        problems = unknown_settings(cast(type, spec), settings.options, "policy.options.")
    else:
        problems = []
    if settings.random_weights and not settings.pretrained:
        problems.append("policy.random_weights=true has no effect without policy.pretrained")
    large = getattr(spec, "on_vision_language_model", False)
    if not large:
        problems += [
            f"policy.{name}=true has no effect on policy.kind={settings.kind}"
            for name in ("checkpoint_activations", "compile")
            if getattr(settings, name)
        ]
    return problems + _adapter_problems(settings, large)


def _adapter_problems(settings: PolicyConfig, large: bool) -> list[str]:
    """Settings of low-rank adapters that cannot be, or would be passed over."""
    targets = settings.lora_targets
    if settings.lora_rank is None:
        given = {
            "lora_alpha": settings.lora_alpha is not None,
            "lora_targets": targets != "all-linear",
        }
        return [
            f"policy.{name} has no effect without policy.lora_rank"
            for name, is_given in given.items()
            if is_given
        ]
    if targets == "all-linear":
        if large:
            return []
        return [
            f"policy.lora_targets=all-linear with policy.kind={settings.kind}: name the layers, "
            "such as [to_q,to_kv]"
        ]
    if isinstance(targets, str) or not targets or not all(isinstance(t, str) for t in targets):
        return [f"policy.lora_targets={targets!r}: expected all-linear or a list of layers' names"]
    return []
