"""The settings of a run's policy that all kinds share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from pydantic import Field

from rftf_torchrl.settings import Count, Positive, Text

Bins = Annotated[int, Field(ge=2, strict=True)]
Scale = Annotated[float, Field(gt=0.05, lt=1.0)]
"""A standard deviation inside of the bounds between which it is learned."""


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Settings of the Gaussian and of the flow head.

    Attributes:
        init_scale: initial standard deviation of the Gaussian head, or of the arm.
        learn_scale: whether fine-tuning changes it.
        flow_steps: denoising steps of the flow head.
        flow_level: noise that the flow head explores with, see :func:`flow_actor`.
    """

    init_scale: Scale = 0.3
    learn_scale: bool = True
    flow_steps: Count = 4
    flow_level: Positive = 0.5


_READ_BY = {
    **dict.fromkeys(("init_scale", "learn_scale"), ("gaussian", "arm_gripper")),
    **dict.fromkeys(("flow_steps", "flow_level"), ("flow",)),
    **dict.fromkeys(("bins", "decoding", "temperature"), ("tokens",)),
}


def options_without_effect(options: type, given: Mapping[str, Any]) -> list[str]:
    """List options of a head that the chosen head does not read, where they are not the default.

    Args:
        options: the dataclass of the kind's options, of which ``head`` is one.
        given: the run's.

    Example:
        >>> @dataclass(frozen=True)
        ... class Options:
        ...     head: str = "gaussian"
        ...     bins: int = 11
        >>> options_without_effect(Options, {"bins": 64})
        ['policy.options.bins=64 has no effect with policy.options.head=gaussian: it is for tokens']
    """
    usual = {each.name: each.default for each in fields(options)}
    head = given.get("head", usual["head"])
    return [
        f"policy.options.{name}={given[name]} has no effect with policy.options.head={head}: it is "
        f"for {' and '.join(heads)}"
        for name, heads in _READ_BY.items()
        if name in given and head not in heads and given[name] != usual.get(name)
    ]


@dataclass
class PolicyConfig:
    """The vision-language-action policy.

    Attributes:
        kind: ``"small"``; ``"transformers"``: on a vision-language model of that library;
            ``"lerobot"``, ``"gr_mg"``, ``"seer"``; a name that an installed package offers; or a
            class of your own as ``"module:Class"``.
        options: settings of this kind alone, see :class:`SmallOptions`,
            :class:`TransformersOptions`, :class:`LeRobotOptions`, :class:`GRMGSpec`,
            :class:`SeerSpec`.
        pretrained: folder or hub id of the model that cloning starts from; not for the small
            policy.
        random_weights: use the config, tokenizer and image processor of ``pretrained`` with random
            weights, to try out a run.
        path: file of a policy to load; null for the one that this run has cloned.
        lora_rank: rank of low-rank adapters. Cloning and fine-tuning then train the adapters
            instead of the weights of a vision-language model (of another policy: of all its
            weights). The reference policy is the one without adapters. Null trains the weights
            themselves.
        lora_alpha: the adapters' output is multiplied by ``lora_alpha / lora_rank``; null for twice
            the rank.
        lora_targets: names of the layers that get adapters; ``"all-linear"`` for all linear layers
            of the trained part of a vision-language model, except its output layer.
        checkpoint_activations: save memory: compute a vision-language model's layers again in the
            backward pass instead of storing their activations.
        compile: run a vision-language model through ``torch.compile`` in fine-tuning.
    """

    kind: Text = "small"
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: str | None = None
    random_weights: bool = False
    path: str | None = None
    lora_rank: Count | None = None
    lora_alpha: Count | None = None
    lora_targets: Any = "all-linear"
    checkpoint_activations: bool = False
    compile: bool = False


@dataclass(frozen=True)
class Sizes:
    """What the spec of a run's policy gets to know of its environment.

    Attributes:
        chunk_size: actions per chunk.
        image_size: edge of the image in pixels; None for none.
        wrist: whether there is a gripper camera.
        robot: the simulator's kind, for messages.
        state_dim: features of the state; 0 before demonstrations are there.
        action_dim: size of an action; 0 before demonstrations are there.
        objects: the state's entries of each object of one kind; empty where there are none.
    """

    chunk_size: int
    image_size: int | None
    wrist: bool
    robot: str
    state_dim: int = 0
    action_dim: int = 0
    objects: tuple[tuple[int, ...], ...] = ()
