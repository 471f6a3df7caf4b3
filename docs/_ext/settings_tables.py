"""``.. settings-tables::`` writes the recipes' settings from the dataclasses that declare them."""

import dataclasses
import inspect
import re
import types
import typing

from pydantic import AfterValidator
from sphinx.util.docutils import SphinxDirective

from rftf_torchrl.configs import schema
from rftf_torchrl.envs.simulator import SIMULATORS, simulator_class
from rftf_torchrl.paper_policies.gr_mg.spec import GRMGSpec
from rftf_torchrl.paper_policies.seer.spec import SeerSpec
from rftf_torchrl.policies.lerobot.spec import LeRobotOptions
from rftf_torchrl.policies.small_vla import SmallOptions
from rftf_torchrl.policies.transformers_vla.options import TransformersOptions
from rftf_torchrl.rewards.forms import FORMS
from rftf_torchrl.study.config import StudyConfig
from rftf_torchrl.values.kinds import VALUE_KINDS, value_spec_class

POLICY_OPTIONS = {
    "small": SmallOptions,
    "transformers": TransformersOptions,
    "lerobot": LeRobotOptions,
    "gr_mg": GRMGSpec,
    "seer": SeerSpec,
}
Row = tuple[str, str, str, str]
# A run fills these fields of a policy's spec in by itself.
FILLED_IN = ("chunk_size", "wrist", "files")
ONE = {int: "whole number", float: "number", bool: "``true`` or ``false``", str: "text"}
MANY = {int: "whole numbers", float: "numbers", str: "texts"}
WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def described(owner: typing.Any, section: str = "Attributes") -> dict[str, str]:
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


def word(value: typing.Any) -> str:
    """A value as one writes it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(word, value))}]"
    return str(value)


def bounds(metadata: typing.Iterable) -> str:
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


def lengths(metadata: typing.Iterable) -> tuple[int, int | None]:
    """The least and the greatest length of a list."""
    least, most = 0, None
    for constraint in metadata:
        for constrained in getattr(constraint, "metadata", [constraint]):
            least = getattr(constrained, "min_length", least)
            most = getattr(constrained, "max_length", most)
    return least, most


def choices(metadata: typing.Iterable) -> tuple | None:
    """The names that :func:`rftf_torchrl.settings.one_of` lets through."""
    for constraint in metadata:
        if isinstance(constraint, AfterValidator):
            found = inspect.getclosurevars(constraint.func).nonlocals
            if "choices" in found:
                return found["choices"]
    return None


def type_and_range(kind: typing.Any, metadata: tuple = ()) -> str:
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
    if kind is typing.Any:
        return "text or list"
    return "mapping"


def list_of(origin: type, inner: tuple, metadata: tuple) -> str:
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


def default(value: typing.Any) -> str:
    """A default as one writes it; a dataclass's is in a table of its own."""
    if value is dataclasses.MISSING or value is inspect.Parameter.empty:
        return "none: it must be given"
    if value == schema.MISSING:
        return "set by the recipe's YAML file"
    if dataclasses.is_dataclass(value):
        return "the authors' sizes"
    return f"``{word(value)}``"


def table(rows: list[Row]) -> list[str]:
    """A list-table of name, type and range, default, meaning."""
    head = ("setting", "type and range", "default", "meaning")
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 26 18 16 40", ""]
    for row in (head, *rows):
        lines += [f"   {mark} - {cell}" for mark, cell in zip("*   ", row, strict=True)]
    return [*lines, ""]


def fields_of(config: type, prefix: str = "", filled_in: tuple = ()) -> list[Row]:
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


def is_group(field: dataclasses.Field) -> bool:
    """Whether a field of the run's settings is a group of settings with a table of its own."""
    group = field.default_factory
    return inspect.isclass(group) and group.__module__ in GROUP_MODULES


GROUP_MODULES = {
    field.default_factory.__module__
    for field in dataclasses.fields(schema.RunConfig)
    if dataclasses.is_dataclass(field.default_factory)
}


def options_of_form(name: str) -> list[Row]:
    """A row for each option of a form of the reward; its ``gamma`` is the run's."""
    form = FORMS.find(name)
    meanings, hints = described(form, "Args"), typing.get_type_hints(form, include_extras=True)
    return [
        (
            f"``reward.options.{each.name}``",
            type_and_range(hints[each.name]),
            default(each.default),
            meanings[each.name],
        )
        for each in inspect.signature(form).parameters.values()
        if each.kind is each.KEYWORD_ONLY and each.name != "gamma"
    ]


def kinds() -> typing.Iterator[tuple[str, list[Row]]]:
    """Title and rows of the options of every kind."""
    for kind in SIMULATORS.names:
        yield f"env.kind={kind}", fields_of(simulator_class(kind).Options, "env.options.")
    for kind, options in POLICY_OPTIONS.items():
        yield f"policy.kind={kind}", fields_of(options, "policy.options.", FILLED_IN)
    for kind in VALUE_KINDS.names:
        yield f"value.kind={kind}", fields_of(value_spec_class(kind), "value.options.")
    for form in FORMS.names:
        yield f"reward.form={form}", options_of_form(form)


class SettingsTables(SphinxDirective):
    """One table for the run, for each group of its settings, for each kind's options, a study."""

    def run(self):
        lines = [".. py:currentmodule:: rftf_torchrl", "", "The run", "^^^^^^^", ""]
        lines += table(fields_of(schema.RunConfig))
        for field in dataclasses.fields(schema.RunConfig):
            if is_group(field):
                group, title = field.default_factory, f"``{field.name}``"
                summary = inspect.getdoc(group).splitlines()[0]
                lines += [title, "^" * len(title), "", summary, ""]
                lines += table(fields_of(group, f"{field.name}."))
        for kind, rows in kinds():
            title = f"Options of ``{kind}``"
            lines += [title, "^" * len(title), "", *table(rows)]
        title = "A study, ``rftf compare``"
        lines += [title, "^" * len(title), "", *table(fields_of(StudyConfig))]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app):
    app.add_directive("settings-tables", SettingsTables)
    return {"parallel_read_safe": True}
