"""What is logged, printed or raised is a sentence or a table, never a dict or a dataclass as it is.

A value counts as a dict where the code says so: by an annotation, a dict display, ``asdict`` or
``vars``, or a call of a function of this repository that is annotated to return one. Dataclasses
with a ``__str__`` of their own are tables.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    file
    for folder in ("rftf_torchrl", "recipes")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if "rftf_torchrl/recipes" not in file.relative_to(ROOT).as_posix()
]
LOG = {"debug", "info", "warning", "error", "exception", "critical"}
RAW = ("dict", "Mapping", "defaultdict", "MutableMapping")


@cache
def trees():
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}


@cache
def raw_classes():
    """Dataclasses whose ``str`` is their repr."""
    found = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            decorated = any("dataclass" in ast.unparse(each) for each in node.decorator_list)
            methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
            if decorated and not {"__str__", "__repr__"} & methods:
                found.add(node.name)
    return found


def is_raw(annotation):
    """Whether an annotation is that of a dict or of such a dataclass."""
    if annotation is None:
        return False
    name = ast.unparse(annotation).strip("'\"").partition("[")[0].rpartition(".")[2]
    return name in RAW or name in raw_classes()


def holds_raw(annotation):
    """Whether an annotation is that of a list of such."""
    inner = annotation.slice if isinstance(annotation, ast.Subscript) else None
    return inner is not None and is_raw(inner.elts[0] if isinstance(inner, ast.Tuple) else inner)


def raw_of_loop(loop, lists):
    """The name of a loop through such a list, numbered or not."""
    iterable, target = loop.iter, loop.target
    if isinstance(iterable, ast.Call) and ast.unparse(iterable.func) == "enumerate":
        iterable, target = iterable.args[0], target.elts[1]
    listed = isinstance(iterable, ast.Name) and iterable.id in lists
    return {target.id} if listed and isinstance(target, ast.Name) else set()


@cache
def makers_of_raw():
    """What gives a dict or such a dataclass when it is called."""
    functions = {
        node.name
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and is_raw(node.returns)
    }
    return functions | raw_classes() | {"asdict", "vars"}


def is_raw_value(node, names):
    """Whether an expression is a dict or such a dataclass, as far as the code says."""
    if isinstance(node, (ast.Dict, ast.DictComp)):
        return True
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return is_raw_value(node.left, names)
    if isinstance(node, ast.Call):
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
        return name in makers_of_raw()
    return False


def raw_names(function):
    """Names of a function that hold a dict or such a dataclass."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    names = {each.arg for each in every if is_raw(each.annotation)}
    lists = {each.arg for each in every if holds_raw(each.annotation)}
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names |= {node.target.id} if is_raw(node.annotation) else set()
        if isinstance(node, ast.For):
            names |= raw_of_loop(node, lists)
        if isinstance(node, ast.Assign) and is_raw_value(node.value, names):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def shown(function):
    """Every expression that ends in a line: arguments of logging and print, and in messages."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            called = node.func
            logs = isinstance(called, ast.Attribute) and called.attr in LOG
            logs = logs and ast.unparse(called.value).endswith(("logger", "log"))
            if logs or (isinstance(called, ast.Name) and called.id == "print"):
                yield from node.args
        if isinstance(node, ast.FormattedValue):
            yield node.value


def raw_lines(tree):
    """Line and text of each dict or dataclass that is shown as it is."""
    found = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            names = raw_names(function)
            raw = [value for value in shown(function) if is_raw_value(value, names)]
            found |= {(value.lineno, ast.unparse(value)) for value in raw}
    return sorted(found)


def test_no_line_is_a_raw_dict():
    found = {
        file.relative_to(ROOT).as_posix(): lines
        for file, tree in trees().items()
        if (lines := raw_lines(tree))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("logger.info('%s', {'a': 1})", "{'a': 1}"),
        ("print(asdict(x))", "asdict(x)"),
        ("found = {n: 1 for n in x}\n    logger.warning('few: %s', found)", "found"),
        ("found: dict[str, int] = f()\n    raise ValueError(f'few: {found}')", "found"),
        ("logger.info('%s', finetune(x))", "finetune(x)"),
        ("logger.error('%s', Episode('reach', 0))", "Episode('reach', 0)"),
        ("for n, one in enumerate(x):\n        print(one)", "one"),
    ],
)
def test_a_raw_dict_is_found(code, found):
    tree = ast.parse(f"def f(x: Sequence[Episode]):\n    {code}")
    assert [text for _, text in raw_lines(tree)] == [found]


@pytest.mark.parametrize(
    "code",
    [
        "found = {}\n    logger.info('%d of them', len(found))",
        "found = {}\n    logger.info('%s', found['a'])",
        "print(', '.join(x))",
        "logger.info('%s', footprint(x))",
    ],
)
def test_a_sentence_is_none(code):
    assert raw_lines(ast.parse(f"def f(x):\n    {code}")) == []
