"""Every setting in words: its type, range, default and meaning, from the class that declares it."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterable
from typing import Any

from omegaconf import MISSING
from pydantic import AfterValidator

from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.data.readers.door import READERS, VIEW
from rftf_torchrl.envs.simulator import SIMULATORS, simulator_class
from rftf_torchrl.policies.settings import Sizes
from rftf_torchrl.policies.spec import POLICIES, spec_class
from rftf_torchrl.registry import Registry
from rftf_torchrl.rewards.forms import FORMS
from rftf_torchrl.values.kinds import VALUE_KINDS, value_spec_class

Row = tuple[str, str, str, str]
ONE = {int: "whole number", float: "number", bool: "``true`` or ``false``", str: "text"}
MANY = {int: "whole numbers", float: "numbers", str: "texts"}
WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def described(owner: Any, section: str = "Attributes") -> dict[str, str]:
    """The meaning of each name in a section of the docstring, and in those of the bases."""
    meanings: dict[str, str] = {}
    for each in reversed(inspect.getmro(owner) if inspect.isclass(owner) else (owner,)):
        text = inspect.cleandoc(each.__doc__ or "").partition(f"{section}:\n")[2]
        name = None
        for line in text.splitlines():
            start = re.fullmatch(r" {4}(\w+): (.*)", line)
            if start:
                name, meanings[start[1]] = start[1], start[2]
            elif line and not line.startswith(" "):
                break
            elif line.strip() and name:
                meanings[name] += " " + line.strip()
    return meanings


def word(value: Any) -> str:
    """A value as one writes it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(word, value))}]"
    return str(value)


def bounds(metadata: Iterable[Any]) -> str:
    """``at least 1`` of the range of a number, ``at least 3 of them`` of that of a list."""
    found = []
    for constraint in metadata:
        for constrained in getattr(constraint, "metadata", [constraint]):
            found += [
                f"{words} {getattr(constrained, name)}"
                for name, words in WORDS.items()
                if getattr(constrained, name, None) not in (None, 2**63)
            ]
    return ", ".join(found)


def lengths(metadata: Iterable[Any]) -> tuple[int, int | None]:
    """The least and the greatest length of a list."""
    least, most = 0, None
    for constraint in metadata:
        for constrained in getattr(constraint, "metadata", [constraint]):
            least = getattr(constrained, "min_length", least)
            most = getattr(constrained, "max_length", most)
    return least, most


def choices(metadata: Iterable[Any]) -> tuple[Any, ...] | None:
    """The names that :func:`rftf_torchrl.settings.one_of` lets through."""
    for constraint in metadata:
        if isinstance(constraint, AfterValidator):
            found = inspect.getclosurevars(constraint.func).nonlocals
            if "choices" in found:
                return tuple(found["choices"])
    return None


def type_and_range(kind: Any, metadata: tuple[Any, ...] = ()) -> str:
    """Type and range of a setting, from its annotation."""
    if isinstance(kind, dataclasses.InitVar):
        return type_and_range(kind.type)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return type_and_range(inner[0], (*kind.__metadata__, *metadata))
    named = choices(metadata) or (inner if origin is typing.Literal else None)
    if named:
        return ", ".join(f"``{word(choice)}``" for choice in named)
    if origin in (typing.Union, types.UnionType):
        parts = [type_and_range(part) for part in inner if part is not type(None)]
        return "; or ".join([*parts, *["``null``"] * (type(None) in inner)])
    if origin in (list, tuple):
        return list_of(origin, inner, metadata)
    if kind in ONE:
        return f"{ONE[kind]}, {bounds(metadata)}".removesuffix(", ")
    if kind is Any:
        return "text or list"
    return "mapping"


def list_of(origin: type, inner: tuple[Any, ...], metadata: tuple[Any, ...]) -> str:
    """A list's length, and what is in it."""
    least, most = lengths(metadata)
    if origin is tuple and inner[-1] is not Ellipsis:
        least = most = len(inner)
    entry, limits = inner[0], ""
    if typing.get_origin(entry) is typing.Annotated:
        limits = bounds(entry.__metadata__)
        entry = typing.get_args(entry)[0]
    count = f"{least} " if least and least == most else ""
    kind = f"list of {count}{MANY.get(entry, 'lists')}"
    return f"{kind}, {limits}" if limits else kind


def default(value: Any) -> str:
    """A default as one writes it; a dataclass's is in a table of its own."""
    if value is dataclasses.MISSING or value is inspect.Parameter.empty:
        return "none: it must be given"
    if value == MISSING:
        return "set by the recipe's YAML file"
    if dataclasses.is_dataclass(value):
        return "the authors' sizes"
    return f"``{word(value)}``"


def fields_of(config: Any, prefix: str = "", filled_in: tuple[str, ...] = ()) -> list[Row]:
    """A row for each field of a dataclass that is no group of settings and not filled in."""
    meanings, hints = described(config), typing.get_type_hints(config, include_extras=True)
    rows = []
    for name in inspect.signature(config).parameters:
        field = config.__dataclass_fields__[name]
        if name in filled_in or is_group(field):
            continue
        made = field.default_factory is not dataclasses.MISSING
        value = field.default_factory() if made else field.default
        cells = (f"``{prefix}{name}``", type_and_range(hints[name]), default(value))
        rows.append((*cells, re.sub(r"\bNone\b", "null", meanings[name])))
    return rows


def is_group(field: dataclasses.Field[Any]) -> bool:
    """Whether a field of the run's settings is a group of settings with a table of its own."""
    group = field.default_factory
    return inspect.isclass(group) and group.__module__ in GROUP_MODULES


GROUP_MODULES = {
    field.default_factory.__module__
    for field in dataclasses.fields(RunConfig)
    if dataclasses.is_dataclass(field.default_factory)
}


def options_of(function: Any, prefix: str, filled_in: Collection[str]) -> list[Row]:
    """A row for each option that a function takes by keyword, without what a run fills in."""
    meanings = described(function, "Args")
    hints = typing.get_type_hints(function, include_extras=True)
    return [
        (
            f"``{prefix}{each.name}``",
            type_and_range(hints[each.name]),
            default(each.default),
            meanings[each.name],
        )
        for each in inspect.signature(function).parameters.values()
        if each.kind is each.KEYWORD_ONLY and each.name not in filled_in
    ]


def options_of_policy(kind: str) -> list[Row]:
    """A row for each option of a kind of policy, without what a run fills in by itself."""
    spec = spec_class(kind)
    filled_in = {field.name for field in dataclasses.fields(Sizes)} - {"image_size"} | {"files"}
    return fields_of(getattr(spec, "Options", spec), "policy.options.", tuple(filled_in))


KINDS: tuple[tuple[str, Registry, Callable[[str], list[Row]]], ...] = (
    (
        "env.kind",
        SIMULATORS,
        lambda kind: fields_of(simulator_class(kind).Options, "env.options."),
    ),
    ("policy.kind", POLICIES, options_of_policy),
    ("value.kind", VALUE_KINDS, lambda kind: fields_of(value_spec_class(kind), "value.options.")),
    ("reward.form", FORMS, lambda form: options_of(FORMS.find(form), "reward.options.", ["gamma"])),
    ("data.kind", READERS, lambda kind: options_of(READERS.find(kind), "data.options.", VIEW)),
)


def kinds() -> list[tuple[str, list[Row], str]]:
    """The word of every kind, its options, and why they can't be shown, if so."""
    found = []
    for setting, registry, options in KINDS:
        for kind in registry.places():
            rows: list[Row] = []
            problem = ""
            try:
                rows = options(kind)
            except (ValueError, ImportError) as error:
                problem = f"its options can't be shown here: {error}"
            found.append((f"{setting}={kind}", rows, problem or "it has no options" * (not rows)))
    return found


def help_lines(schema: type = RunConfig) -> list[str]:
    """All settings with type, range, default and meaning, for the console; a run's kinds too."""
    groups = [
        (f"{field.name}.", field.default_factory)
        for field in dataclasses.fields(schema)
        if is_group(field)
    ]
    lines = []
    for prefix, owner in [("", schema), *groups]:
        title = prefix.removesuffix(".") or "settings"
        summary = (inspect.getdoc(owner) or "").splitlines()[0]
        lines += ["", f"{title}: {summary}", *_help_rows(fields_of(owner, prefix))]
    if schema is RunConfig:
        for word, rows, note in kinds():
            lines += ["", f"options of {word}: {note}".removesuffix(": "), *_help_rows(rows)]
    return lines


def _help_rows(rows: list[Row]) -> list[str]:
    lines, indent = [], " " * 6
    for name, kind, value, meaning in rows:
        lines.append(_plain(f"  {name} = {value}  ({kind})"))
        lines += textwrap.wrap(_plain(meaning), 92, initial_indent=indent, subsequent_indent=indent)
    return lines


def _plain(text: str) -> str:
    """Without the marks of the documentation."""
    return re.sub(r":\w+:", "", text).replace("`", "")
