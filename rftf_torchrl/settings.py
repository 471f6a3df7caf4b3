"""Types of settings that carry their range, and the check of given settings against a dataclass.

A setting is declared once, as a field of the dataclass of what it configures. Its annotation says
its type, range and choices; the class's ``Attributes:`` say what it means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from inspect import signature
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

Settings = TypeVar("Settings")
T = TypeVar("T")

Count = Annotated[int, Field(ge=1, strict=True)]
NotNegativeInt = Annotated[int, Field(ge=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Text = Annotated[str, Field(min_length=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]


def different(names: list[T]) -> list[T]:
    """Refuses a list that has one thing twice."""
    if len(set(names)) != len(names):
        raise ValueError("each name once")
    return names


Names = Annotated[list[Text], Field(min_length=1), AfterValidator(different)]

_MESSAGES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a text",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_too_short": "must not be empty",
    "too_short": "must have at least {min_length}",
    "literal_error": "must be {expected}",
    "too_long": "must have at most {max_length}",
    "tuple_type": "must be a list",
    "dataclass_type": "must be a record",
    "missing": "is not set",
}


def one_of(*choices: Any) -> AfterValidator:
    """A range of names: ``kind: Annotated[str, one_of("outcome", "none")]``."""

    def check(value: Any) -> Any:
        if value not in choices:
            near = get_close_matches(str(value), [str(choice) for choice in choices], n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"choose from {', '.join(map(_word, choices))}{hint}")
        return value

    return AfterValidator(check)


def setting_problems(cls: type, given: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List what is wrong with settings: unknown names, wrong types, values out of range.

    Args:
        cls: a dataclass with fields of the types above; nested dataclasses are checked too.
        given: values by name; a nested dataclass's as a mapping.
        prefix: what stands before each name, as ``"env.options."``.

    Returns:
        One line for each problem, in the order of the fields; empty where there is none.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Options:
        ...     action_repeat: Count = 1
        ...     scale: Positive = 1.0
        >>> setting_problems(Options, {"action_repeat": 0, "scal": 2.0}, "env.options.")
        ["env.options.scal: there is no such setting, did you mean 'scale'?", \
'env.options.action_repeat=0: must be at least 1']
    """
    problems = unknown_settings(cls, given, prefix)
    try:
        _adapter(cls).validate_python(dict(given))
    except ValidationError as error:
        problems += validation_problems(error, prefix, _word)
    return problems


def validation_problems(
    error: ValidationError, prefix: str, word: Callable[[Any], str] = repr
) -> list[str]:
    """One line for each problem that pydantic found: its place, the value there as a word, why."""
    return [_line(detail, prefix, word) for detail in error.errors()]


def make_settings(cls: type[Settings], given: Mapping[str, Any], prefix: str = "") -> Settings:
    """Make the dataclass from settings.

    Args:
        cls: see :func:`setting_problems`.
        given: see :func:`setting_problems`.
        prefix: see :func:`setting_problems`.

    Returns:
        The dataclass, its lists turned into tuples where the field is a tuple.

    Raises:
        ValueError: listing every problem.
    """
    problems = setting_problems(cls, given, prefix)
    if problems:
        raise ValueError("; ".join(problems))
    kind: type = cls
    return cast(Settings, _adapter(kind).validate_python(dict(given)))


def unknown_settings(cls: type, given: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the names that a dataclass does not take; see :func:`setting_problems`."""
    known = signature(cls).parameters
    nested: dict[str, Any] = {each.name: each.default_factory for each in fields(cls)}
    problems = []
    for name, value in given.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
            problems.append(f"{prefix}{name}: there is no such setting, {hint}")
        elif is_dataclass(nested.get(name)) and isinstance(value, Mapping):
            problems += unknown_settings(nested[name], value, f"{prefix}{name}.")
    return problems


def check_value(name: str, value: Any, kind: Any) -> None:
    """Refuse an argument that is not of a type of this module.

    Args:
        name: the argument's name.
        value: what was given.
        kind: a type such as :data:`Fraction`.

    Raises:
        ValueError: with the name, the value and what it must be.

    Example:
        >>> check_value("gamma", 0.97, Fraction)
        >>> check_value("gamma", 5, Fraction)
        Traceback (most recent call last):
            ...
        ValueError: gamma=5: must be at most 1
    """
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError("; ".join(validation_problems(error, name))) from error


@cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _line(detail: ErrorDetails, prefix: str, word: Callable[[Any], str]) -> str:
    names = [str(part) for part in detail["loc"] if not _is_branch(part)]
    where = prefix + ".".join(names)
    context = {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in detail.get("ctx", {}).items()
    }
    message = _MESSAGES.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    text = message.format(**context)
    if detail["type"] == "missing":
        return f"{where} {text}"
    if isinstance(detail["input"], Mapping):  # a dataclass's own check, of several fields
        return f"{where.rstrip('.')}: {text}" if where else text
    return f"{where}={word(detail['input'])}: {text}"


def _is_branch(part: int | str) -> bool:
    """Whether a part of a place is pydantic's name of a type in a union."""
    return isinstance(part, str) and "[" in part


def _word(value: Any) -> str:
    """A value as one writes it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
