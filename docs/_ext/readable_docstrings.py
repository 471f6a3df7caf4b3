"""Set the shapes in docstrings, ``[*B, 3, height, width]``, as code: ``*`` is markup otherwise."""

import re

# A bracket with a star, or a list of short names and numbers; not a link, a footnote or code.
SHAPE = re.compile(r"(?<![`\w\]])\[(?=[^\]]*\*|[A-Z]\b|\.\.\.)[\w*.,+ ]*\](?![`_(])")


def process(app, what, name, obj, options, lines):
    """Rewrite the lines that are prose, leaving tables, examples and equations alone."""
    if what == "module":
        return
    in_example = in_maths = False
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip().startswith(".. math::"):
            in_maths, maths_indent = True, indent
        elif in_maths and line.strip() and indent <= maths_indent:
            in_maths = False
        in_example = line.strip().startswith(">>>") or (in_example and bool(line.strip()))
        if not in_example and not in_maths:
            prose_and_code = line.split("``")
            prose_and_code[::2] = [SHAPE.sub(r"``\g<0>``", prose) for prose in prose_and_code[::2]]
            lines[number] = "``".join(prose_and_code)


def setup(app):
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True}
