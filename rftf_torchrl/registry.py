"""Find a part that a user names: the library's own, one of an installed package, or a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Registry:
    """The parts of one sort, by name.

    Attributes:
        what: the sort, for errors, as ``"simulator"``.
        group: the group of entry points in which installed packages offer their own.
        names: the place of each of the library's own, as ``"module:Name"``.
        needs: attributes that each part must have.

    Example:
        >>> shapes = Registry("shape", "example.shapes", {"path": "pathlib:Path"}, ("exists",))
        >>> shapes.find("path").__name__, shapes.find("pathlib:PurePath")
        Traceback (most recent call last):
            ...
        ValueError: pathlib:PurePath is no shape: it lacks exists.
    """

    what: str
    group: str
    names: Mapping[str, str]
    needs: tuple[str, ...] = ()

    def find(self, kind: str) -> Any:
        """Import a part.

        Args:
            kind: a name, or ``"module:Name"`` of the user's own.

        Returns:
            The class or function.

        Raises:
            ValueError: if the name is unknown, cannot be imported, or lacks attributes; the error
                says which.
        """
        place = self.names.get(kind, kind)
        if ":" not in place:
            place = self.places().get(kind, kind)
        module, _, name = place.partition(":")
        if not name:
            raise ValueError(self._unknown(kind))
        if "/" in module or module.startswith("."):
            raise ValueError(
                f"{place} names a file: give the module's name, such as "
                f"{Path(module).stem or 'module'}:{name}, and its folder in PYTHONPATH."
            )
        try:
            found = getattr(import_module(module), name)
        except (ModuleNotFoundError, AttributeError) as error:
            raise ValueError(
                f"no {self.what} at {place} ({error}): make it importable, for example by its "
                "folder in PYTHONPATH."
            ) from error
        lacking = [need for need in self.needs if not hasattr(found, need)]
        if lacking:
            raise ValueError(f"{place} is no {self.what}: it lacks {', '.join(lacking)}.")
        return found

    def places(self) -> dict[str, str]:
        """The place of each named part, those of installed packages included."""
        installed = {entry.name: entry.value for entry in entry_points(group=self.group)}
        return {**installed, **self.names}

    def _unknown(self, kind: str) -> str:
        known = list(self.places())
        near = get_close_matches(kind, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        choices = f"choose from {', '.join(known)}, " if known else ""
        return (
            f"unknown {self.what} {kind!r}: {choices}give your own as "
            f"'module:Name', or offer it as an entry point in the group {self.group!r}.{hint}"
        )
