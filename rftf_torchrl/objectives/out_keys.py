"""The outputs of a loss, told by its settings as they are now."""

from __future__ import annotations

from collections.abc import Sequence


class ToldOutKeys:
    """Gives a loss ``out_keys`` that follow :meth:`_written` until some of them are selected."""

    _selected: list[str] | None = None

    @property
    def out_keys(self) -> list[str]:
        """Names of the loss terms and diagnostics."""
        return self._written() if self._selected is None else self._selected

    @out_keys.setter
    def out_keys(self, names: Sequence[str]) -> None:
        self._selected = None if list(names) == self._written() else list(names)

    def _written(self) -> list[str]:
        """What forward writes."""
        raise NotImplementedError
