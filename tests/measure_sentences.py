"""Measure the sentences of the README, the docs and public docstrings.

``python tests/measure_sentences.py`` prints the mean and every sentence that is too long.

A word is what stands between spaces and has a letter or a digit; code, a formula or a role is one
word. Left out: code blocks, tables, directives, formulas on lines of their own, links' addresses.
A heading, an item of a list and an entry of ``Args`` are texts by themselves.
"""

import ast
import inspect
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LONGEST, MEAN = 40, 25
# One term per thing: these have another one, image and video.
OTHER_TERMS = re.compile(r"\b(pictures?|films?|filmed)\b")
# Directives whose indented or fenced content is no prose.
NO_PROSE = (
    *("code-block", "code", "math", "list-table", "table", "csv-table", "toctree", "autosummary"),
    *("figure", "image", "py:data", "testcode", "parsed-literal", "raw", "currentmodule"),
)
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Examples?|Notes?|Warnings?):$")
ENTRY = re.compile(r"(\*{0,2}[\w.,* ]+?(?: \([^)]*\))?|``[^`]+``):\s")
ITEM = re.compile(r"(?:[-*+]|\d+\.|:) +")
DOT = "\N{ONE DOT LEADER}"
SHORT_FORMS = re.compile(r"\b(e\.g|i\.e|et al|vs|cf|No|Fig|Eq|eq|Sec|etc)\.")
END = re.compile(r"(?<=[.!?])[\"')\]”]*\s+(?=[\"'(\[“]*[A-Z0-9\N{REPLACEMENT CHARACTER}])")
CODE = "\N{REPLACEMENT CHARACTER}x"


class Sentence(NamedTuple):
    """A sentence with its place."""

    file: str
    line: int
    words: int
    text: str


def plain(text):
    """A block without markup: code, formulas and roles as one word each."""
    text = re.sub(r"<!--.*?-->|<[a-z/][^>]*>", "", text)
    text = re.sub(r"(?:[:{][\w:]+[:}])?(`+)(.+?)\1_{0,2}", CODE, text)
    text = re.sub(r"\$[^$]+\$", CODE, text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\*\*?|(?<!\w)_|_(?!\w)", "", text)
    return SHORT_FORMS.sub(lambda found: found[1].replace(".", DOT) + DOT, text)


def sentences_of(block):
    """The sentences of a block with their numbers of words."""
    for sentence in END.split(plain(block)):
        words = [word for word in sentence.split() if re.search(r"\w", word)]
        if words:
            yield len(words), " ".join(sentence.split()).replace(CODE, "`code`")


def indent_of(line):
    return len(line) - len(line.lstrip())


def blocks(lines):
    """(number of its first line, text) of each block of prose in Markdown or reStructuredText."""
    block, start = [], 0
    skip_below = fence = None  # the indent of a directive without prose; the mark of a fence
    in_example = in_section = in_table = False

    def flush():
        nonlocal block
        if block:
            yield start, " ".join(block)
        block = []

    for number, line in enumerate(lines, 1):
        text = line.strip()
        if fence is not None:
            fence = None if text.startswith(fence) and not text.strip(fence[0]) else fence
            continue
        if skip_below is not None and text and indent_of(line) <= skip_below:
            skip_below = None
        if skip_below is not None:
            continue
        in_example = (in_example and bool(text)) or text.startswith(">>>")
        mark = re.match(r"(`{3,}|:{3,})(.*)", text)
        directive = re.match(r"\.\. ([\w:-]+)::|\.\. _", text)
        if mark:
            yield from flush()
            named = re.match(r"\{([\w:-]+)\}", mark[2])
            if mark[1][0] == "`" or (named and named[1] in NO_PROSE):
                fence = mark[1]
        elif directive:
            yield from flush()
            if directive[1] in NO_PROSE:
                skip_below = indent_of(line)
        elif in_example or not text or re.fullmatch(r"[=\-~^\"'+|:#]{3,}", text):
            yield from flush()
            in_table = in_table and bool(text)
        elif in_table or re.fullmatch(r"=+( +=+)+", text):
            in_table = True
        elif text.startswith("|") or re.match(r":[\w-]+:( |$)", text):
            yield from flush()
        elif not block and not in_section and indent_of(line) >= 4:
            pass  # an indented block is code
        elif SECTION.match(text):
            yield from flush()
            in_section = text not in ("Notes:", "Note:")
        else:
            entry = ENTRY.match(text) if in_section and 0 < indent_of(line) <= 4 else None
            item = ITEM.match(text)
            if text.startswith("#") or entry or item:
                yield from flush()
            if not block:
                start = number
            text = text[entry.end() :] if entry else text[item.end() :] if item else text
            block.append(text.lstrip("#> "))
            if line.startswith("#"):
                yield from flush()
            if text.endswith("::"):
                yield from flush()
                skip_below = indent_of(line)
    yield from flush()


def docstrings(source):
    """(number of its first line, text) of each docstring of a name without an underscore."""

    def walk(node):
        text = ast.get_docstring(node, clean=False)
        if text is not None:
            yield node.body[0].lineno, inspect.cleandoc(text)
        for child in node.body:
            named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if named and not child.name.startswith("_"):
                # What a function defines inside is private.
                yield from walk(child) if isinstance(child, ast.ClassDef) else own(child)

    def own(function):
        text = ast.get_docstring(function, clean=False)
        if text is not None:
            yield function.body[0].lineno, inspect.cleandoc(text)

    yield from walk(ast.parse(source))


def tutorial_texts(source):
    """(number of its first line, text) of a tutorial's docstring and of its comments' blocks."""
    yield from list(docstrings(source))[:1]
    texts, start = [], 0
    for number, line in enumerate([*source.splitlines(), ""], 1):
        if line.startswith("# %%"):
            texts, start = [""], number
        elif texts and line.startswith("#"):
            texts.append(line[2:])
        elif texts:
            yield start, "\n".join(texts)
            texts = []


def texts_of(file):
    """(number of its first line, text) of everything that a file has to read."""
    source = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield 1, source
    elif file.parent.name == "tutorials":
        yield from tutorial_texts(source)
    else:
        yield from docstrings(source)


def files():
    """The README, the sources of the pages, the package and its recipes."""
    docs = ROOT / "docs"
    pages = [*docs.glob("*.md"), *docs.glob("how-to/*"), *docs.glob("reference/*.*")]
    pages += [*docs.glob("start/*"), *docs.glob("results/**/*.md")]
    pages += [*docs.glob("reference/api/*.rst"), *docs.glob("tutorials/*.py")]
    code = [*ROOT.glob("rftf_torchrl/**/*.py"), *ROOT.glob("recipes/*.py")]
    code = [
        file for file in code if "rftf_torchrl/recipes" not in file.relative_to(ROOT).as_posix()
    ]
    public = [file for file in code if not file.stem.startswith("_") or file.stem == "__init__"]
    return sorted({ROOT / "README.md", *pages, *public})


def measure():
    """Every sentence, longest first."""
    found = [
        Sentence(file.relative_to(ROOT).as_posix(), first + line - 1, words, sentence)
        for file in files()
        for first, text in texts_of(file)
        for line, block in blocks(text.splitlines())
        for words, sentence in sentences_of(block)
    ]
    return sorted(found, key=lambda sentence: -sentence.words)


def mean(sentences):
    """Words a sentence."""
    return sum(sentence.words for sentence in sentences) / len(sentences)


if __name__ == "__main__":
    measured = measure()
    long = [sentence for sentence in measured if sentence.words > LONGEST]
    for file, line, words, text in long:
        print(f"{file}:{line}: {words} words: {text}")
    print(f"{len(measured)} sentences, {mean(measured):.1f} words each, {len(long)} over {LONGEST}")
