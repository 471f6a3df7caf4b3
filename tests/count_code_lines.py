"""Count the code lines of the package and its recipes: python tests/count_code_lines.py.

A code line is one that holds code: no blank line, no comment, no docstring. Counted is the Python
that git tracks, outside tests and docs, and a symbolic link is not followed: what it leads to
counts once, where it lies.
"""

import ast
import io
import subprocess
import tokenize
from collections import Counter
from pathlib import Path

# Where an area's files lie: folders, or modules of the same name. The rest of the package is core.
AREAS = {
    "calvin": ["rftf_torchrl/calvin"],
    "metaworld": ["rftf_torchrl/metaworld"],
    "libero": ["rftf_torchrl/libero"],
    "paper policies": ["rftf_torchrl/paper_policies"],
    "pretrained VLAs": [
        "rftf_torchrl/policies/transformers_vla",
        "rftf_torchrl/policies/lerobot",
        "rftf_torchrl/values/pretrained",
    ],
    "study": ["rftf_torchrl/study"],
    "recipes": ["recipes"],
    "core": ["rftf_torchrl"],
}
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def docstring_lines(source):
    """The numbers of the lines that docstrings cover."""
    lines = set()
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            lines.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def code_lines(source):
    """The number of code lines; a string that is no docstring counts with all of its lines."""
    docstrings = docstring_lines(source)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        covered = set(range(token.start[0], token.end[0] + 1))
        if token.type in NO_CODE or (token.type == tokenize.STRING and covered <= docstrings):
            continue
        lines |= covered
    return len(lines)


def area_of(path):
    """The first area that a file's path lies in."""
    for area, places in AREAS.items():
        if any(path.startswith((f"{place}/", f"{place}.py")) for place in places):
            return area
    return "other"


def tracked_files(root):
    """The paths of the Python files that git tracks, without links and what tests and docs hold."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.pyi"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    ).stdout
    for path in listed.split("\0"):
        file = Path(root, path)
        if not path.startswith(("tests/", "docs/")) and file.is_file() and not file.is_symlink():
            yield path


def count(root):
    """Area -> [files, code lines], in the order of AREAS."""
    files, lines = Counter(), Counter()
    for path in tracked_files(root):
        files[area_of(path)] += 1
        lines[area_of(path)] += code_lines(Path(root, path).read_text(encoding="utf-8"))
    return {area: (files[area], lines[area]) for area in [*AREAS, "other"] if area in files}


def table(counts):
    """The counts as a Markdown table, with their total."""
    rows = [*counts.items(), ("total", tuple(map(sum, zip(*counts.values(), strict=True))))]
    head = ["| area | files | code lines |", "|---|---:|---:|"]
    return "\n".join(head + [f"| {area} | {n} | {lines:,} |" for area, (n, lines) in rows])


if __name__ == "__main__":
    print(table(count(Path(__file__).parents[1])))
