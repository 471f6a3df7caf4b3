"""The command ``rftf``: runs a recipe by its name."""

from __future__ import annotations

import ast
import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

RECIPES = Path(__file__).parent / "recipes"


def commands() -> dict[str, str]:
    """The first line of every recipe's description, by the name of its command."""
    found = {}
    for file in sorted(RECIPES.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[file.stem.replace("_", "-")] = (ast.get_docstring(tree) or "").splitlines()[0]
    return found


def usage(known: dict[str, str]) -> str:
    width = max(map(len, known))
    lines = [f"  {name:{width}}  {line}" for name, line in known.items()]
    return "\n".join(
        [
            "usage: rftf COMMAND [setting=value ...] [--config-name NAME] [--config-dir FOLDER]",
            "",
            *lines,
            "",
            "rftf COMMAND --help shows the settings of a command, rftf --version the version.",
        ]
    )


def main() -> None:
    """Run ``rftf COMMAND ...``; without a command, list them."""
    known = commands()
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(usage(known))
        return
    if command == "--version":
        print(version("rftf-torchrl"))
        return
    if command not in known:
        near = get_close_matches(command, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"rftf: there is no command {command!r}{hint}\n\n{usage(known)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"rftf {command}", *arguments]
    if not {"-h", "--help"} & {*arguments}:
        print(f"rftf {command}: loading PyTorch, which takes some seconds", file=sys.stderr)
    import_module(f"rftf_torchrl.recipes.{command.replace('-', '_')}").main()
