"""Markdown, to the letter."""

import re

import pytest

from rftf_torchrl import markdown_table, phase_table, run_report


def test_table():
    assert markdown_table(["a", "b"], [["x|y", 1], [0.5, None]]) == "\n".join(
        ["| a | b |", "|---|---:|", "| x\\|y | 1 |", "| 0.5 | None |"]
    )
    assert markdown_table(["a", "b"], [], align="rl") == "| a | b |\n|---:|---|"


def test_phases():
    assert phase_table({"collect": 6.0, "update": 2.0}) == "\n".join(
        [
            "| phase | seconds | share |",
            "|---|---:|---:|",
            "| collect | 6.0 | 75.0% |",
            "| update | 2.0 | 25.0% |",
            "| sum | 8.0 | 100.0% |",
        ]
    )
    assert phase_table({}).endswith("| sum | 0.0 | – |")


def test_report():
    text = run_report("Run 1", {"Success": "| a |\n|---|\n", "Empty": " ", "Time": "2 s"})
    assert text == "# Run 1\n\n## Success\n\n| a |\n|---|\n\n## Time\n\n2 s\n"


BROKEN = [
    (
        lambda: markdown_table(["a", "b"], [["x", 1], ["y"]]),
        "row 1 has 1 cells and the header has 2: ['y']; expected one cell per column.",
    ),
    (
        lambda: markdown_table(["a", "b"], [], align="lc"),
        "align is 'lc' for 2 columns; expected one 'l' or 'r' per column.",
    ),
    (
        lambda: phase_table({"collect": -1.0}),
        "phase 'collect' took -1.0 seconds; expected 0 or more.",
    ),
]


@pytest.mark.parametrize(("call", "message"), BROKEN)
def test_broken_inputs(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
