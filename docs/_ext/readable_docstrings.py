"""What autodoc makes of the docstrings: shapes as code, and the signatures of ``__init__``."""

import inspect
import re

# A bracket that holds a shape: a star, an ellipsis or a capital letter among names and numbers.
SHAPE = re.compile(r"(?<![`\w\]])\[(?=[^\]]*\*|[A-Z]\b|\.\.\.)[\w*.,+ ]*\](?![`_(])")


def set_shapes_as_code(app, what, name, obj, options, lines):
    """Quote shapes such as ``[*B, 3, h, w]`` in prose; a star would be markup otherwise."""
    if what == "module":  # has a table whose columns would no longer line up
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


def show_init_signature(app, what, name, obj, options, signature, return_annotation):
    """TorchRL's metaclasses hide the signature of a class; show that of its ``__init__``."""
    if what != "class" or signature != "(*args, **kwargs)" or "__init__" not in vars(obj):
        return None
    parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(plain)), return_annotation


def skip_key_tables(app, what, name, obj, skip, options):
    """``default_keys`` is how TorchRL's losses find their keys; the page would show an alias."""
    return True if name == "default_keys" else None


def setup(app):
    app.connect("autodoc-process-docstring", set_shapes_as_code, priority=400)
    app.connect("autodoc-process-signature", show_init_signature)
    app.connect("autodoc-skip-member", skip_key_tables)
    return {"parallel_read_safe": True}
