"""Numbers, tables and images in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

MISSING = "–"


class Report(Protocol):
    """What an evaluation of a policy returns: :class:`~rftf_torchrl.SuccessReport`, for one.

    Attributes:
        name: what was counted, as ``"success"``; its key in ``results.json``.
    """

    name: ClassVar[str]

    def markdown(self) -> str:
        """The numbers in Markdown."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, strings and lists."""
        ...


def number(value: float, form: str = ".3f") -> str:
    """A number in a format; NaN, which stands for "not known", as a dash.

    Example:
        >>> number(0.875), number(-1.5, "+.1f"), number(float("nan"))
        ('0.875', '-1.5', '–')
    """
    return MISSING if math.isnan(value) else format(value, form)


def interval(low: float, high: float, form: str = ".3f") -> str:
    """An interval in words.

    Example:
        >>> interval(0.25, 0.5), interval(float("nan"), float("nan"))
        ('0.250 to 0.500', '–')
    """
    return MISSING if math.isnan(low) else f"{number(low, form)} to {number(high, form)}"


def percent(rate: float) -> str:
    """A rate as a percentage with one decimal.

    Example:
        >>> percent(0.875), percent(float("nan"))
        ('87.5%', '–')
    """
    return number(rate, ".1%")


def percent_interval(low: float, high: float) -> str:
    """An interval of rates.

    Example:
        >>> percent_interval(0.25, 0.5)
        '25.0% to 50.0%'
    """
    return interval(low, high, ".1%")


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, align: str | None = None
) -> str:
    """A Markdown table.

    Args:
        header: one name per column.
        rows: cells by row; each becomes a string in which ``|`` is escaped.
        align: one letter per column, ``"l"`` or ``"r"``; by default the first column is left
            aligned and all others, which mostly hold numbers, right.

    Returns:
        The table without a final newline.

    Raises:
        ValueError: for a row or ``align`` that does not fit the header.

    Example:
        >>> print(markdown_table(["task", "successes"], [["drawer-open", 9]]))
        | task | successes |
        |---|---:|
        | drawer-open | 9 |
    """
    align = "l" + "r" * (len(header) - 1) if align is None else align
    if len(align) != len(header) or set(align) - {"l", "r"}:
        raise ValueError(
            f"align is {align!r} for {len(header)} columns; expected one 'l' or 'r' per column."
        )
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(
                f"row {number} has {len(row)} cells and the header has {len(header)}: "
                f"{list(map(str, row))}; expected one cell per column."
            )
    rule = "|".join("---" if letter == "l" else "---:" for letter in align)
    return "\n".join([_line(header), f"|{rule}|", *map(_line, rows)])


def phase_table(seconds: Mapping[str, float]) -> str:
    """Where the time of a run went, as a Markdown table with the shares and the sum.

    Args:
        seconds: wall time by phase, as :class:`~rftf_torchrl.PhaseClock` adds it up.

    Raises:
        ValueError: for a negative time.

    Example:
        >>> print(phase_table({"collect": 90.0, "update": 30.0}))
        | phase | seconds | share |
        |---|---:|---:|
        | collect | 90.0 | 75.0% |
        | update | 30.0 | 25.0% |
        | sum | 120.0 | 100.0% |
    """
    for phase, time in seconds.items():
        if not time >= 0:
            raise ValueError(f"phase {phase!r} took {time} seconds; expected 0 or more.")
    total = sum(seconds.values())
    rows = [
        [phase, f"{time:.1f}", percent(time / total if total else math.nan)]
        for phase, time in (*seconds.items(), ("sum", total))
    ]
    return markdown_table(["phase", "seconds", "share"], rows)


def protocols(reports: Mapping[str, Any]) -> str:
    """What evaluations say of their protocol, by policy where they differ; empty without any.

    Example:
        >>> from rftf_torchrl import ChainReport
        >>> reports = {"cloned": ChainReport((), protocol="Official protocol")}
        >>> protocols({**reports, "RFTF": reports["cloned"]})
        'Official protocol.'
    """
    said: dict[str, list[str]] = {}
    for label, report in reports.items():
        said.setdefault(getattr(report, "protocol", ""), []).append(label)
    if len(said) == 1:
        (only,) = said
        return only and f"{only}."
    return " ".join(f"{', '.join(labels)}: {protocol}." for protocol, labels in said.items())


def run_report(title: str, sections: Mapping[str, str], lead: str = "") -> str:
    """A Markdown document: a title, what comes first, then a heading and a text for each section.

    If a table has a dash, for an unknown number, a last line explains it.

    Args:
        title: the document's title.
        sections: text by heading, in order; empty texts are left out with their headings.
        lead: what a reader has to know before all else, such as a departure from a protocol.

    Example:
        >>> print(run_report("Run", {"Success": "9 of 10", "Notes": ""}))
        # Run
        <BLANKLINE>
        ## Success
        <BLANKLINE>
        9 of 10
        <BLANKLINE>
    """
    parts = [f"# {title}", *filter(None, [lead])]
    for heading, text in sections.items():
        if text.strip():
            parts += [f"## {heading}", text.strip()]
    if any(f"| {MISSING} |" in part for part in parts):
        parts.append(f"{MISSING} means that the data do not say.")
    return "\n\n".join(parts) + "\n"


def image(path: str | Path) -> str:
    """An image in Markdown.

    Example:
        >>> image("learning_curve.png")
        '![learning curve](learning_curve.png)'
    """
    return f"![{Path(path).stem.replace('_', ' ')}]({Path(path).as_posix()})"


def film_images(films: Sequence[Path], folder: Path) -> str:
    """Videos of :func:`~rftf_torchrl.write_video` as images that move, with links to the MP4s.

    Example:
        >>> print(film_images([Path("run/videos/a.mp4")], Path("run")))
        ![a](videos/a.webp)
        <BLANKLINE>
        [a.mp4](videos/a.mp4)
    """
    places = [film.relative_to(folder) for film in films]
    return "\n\n".join(
        f"{image(place.with_suffix('.webp'))}\n\n[{place.name}]({place.as_posix()})"
        for place in places
    )


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
