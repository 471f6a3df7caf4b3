"""Value models by one word: the library's kinds, one of an installed package, or a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Protocol, cast

from tensordict.nn import TensorDictModuleBase

from rftf_torchrl.nets.sizes import ObservationSizes
from rftf_torchrl.registry import Registry
from rftf_torchrl.settings import make_settings, setting_problems

VALUE_KINDS = Registry(
    "kind of value model",
    "rftf_torchrl.value_models",
    {
        "small": "rftf_torchrl.values.specs:SmallValue",
        "pretrained": "rftf_torchrl.values.specs:PretrainedValue",
        "score": "rftf_torchrl.values.specs:ScoreValue",
        "lerobot": "rftf_torchrl.values.lerobot_value:LeRobotValue",
    },
    ("build",),
)


class ValueSpecProtocol(Protocol):
    """What a class has to have for its value models to be trained, saved and used by the recipes.

    It is a dataclass, whose fields are the kind's options (``value.options``). Three members are
    optional. ``pretrained_option`` names the option that is the folder or hub id of a model, which
    is looked for before a run begins. ``trained = False`` says that its models are used as they
    are, without training and without a file; then :meth:`build` may return any value module.
    ``problems() -> list[str]`` says what is wrong with options that can be read, a line each,
    before anything is made.
    """

    def build(self, sizes: ObservationSizes) -> TensorDictModuleBase:
        """A :class:`TemporalValueModel` with fresh weights, which a file's weights may fill."""


def value_spec_class(kind: str) -> Any:
    """Find the class that describes a kind of value model.

    Args:
        kind: ``"small"``, ``"pretrained"``, ``"score"``, ``"lerobot"``, a name that an
            installed package offers, or ``"module:Class"`` of your own.

    Returns:
        The class, see :class:`ValueSpecProtocol`.

    Raises:
        ValueError: where there is no such kind, or the class lacks something.

    Example:
        >>> value_spec_class("small").__name__
        'SmallValue'
    """
    found = VALUE_KINDS.find(kind)
    if not is_dataclass(found):
        raise ValueError(
            f"value.kind={kind} is no dataclass: let its fields be its options (value.options)."
        )
    return found


def value_problems(kind: str, options: Mapping[str, Any]) -> list[str]:
    """List what is wrong with a kind of value model and its options.

    Args:
        kind: see :func:`value_spec_class`.
        options: by name.

    Returns:
        One line for each problem.

    Example:
        >>> value_problems("small", {"channels": [16, 32]})
        ['value.options.channels=[16, 32]: must have at least 3']
    """
    try:
        found = setting_problems(value_spec_class(kind), options, "value.options.")
        own = None if found else getattr(value_spec(kind, options), "problems", None)
        return cast(list[str], own()) if callable(own) else found
    except ValueError as error:
        return [f"value.kind={kind}: {error}"]


def value_spec(kind: str, options: Mapping[str, Any]) -> Any:
    """Make the description of a value model.

    Args:
        kind: see :func:`value_spec_class`.
        options: its fields.

    Returns:
        The spec.

    Raises:
        ValueError: listing every problem.

    Example:
        >>> value_spec("small", {"channels": [8, 8, 8]})
        SmallValue(channels=(8, 8, 8))
    """
    return make_settings(value_spec_class(kind), options, "value.options.")
