"""Sentences are short: in the README, on the pages and in the docstrings of public names."""

import pytest
from measure_sentences import (
    LONGEST,
    MEAN,
    OTHER_TERMS,
    blocks,
    docstrings,
    mean,
    measure,
    sentences_of,
)


@pytest.fixture(scope="module")
def measured():
    return measure()


def test_no_sentence_is_too_long(measured):
    assert [sentence for sentence in measured if sentence.words > LONGEST] == []


def test_sentences_are_short_on_average(measured):
    assert mean(measured) <= MEAN


def test_one_term_per_thing(measured):
    assert [sentence for sentence in measured if OTHER_TERMS.search(sentence.text)] == []


def test_every_kind_of_text_is_measured(measured):
    files = {sentence.file for sentence in measured}
    for file in (
        "README.md",
        "docs/how-to/configuration.rst",
        "docs/tutorials/plot_05_videos.py",
        "rftf_torchrl/configs/schema.py",
        "recipes/finetune.py",
    ):
        assert file in files


def words_of(text):
    return [words for _, block in blocks(text.splitlines()) for words, _ in sentences_of(block)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("One two. Three four five? `six` seven!", [2, 3, 2]),
        ("A line\nthat goes on.\n\nAnother block", [5, 2]),
        ("# A heading\nText here.", [2, 2]),
        ("- an item\n- another one\n  that goes on", [2, 5]),
        ("e.g. this, i.e. one. And `code. With dots` too.", [4, 3]),
        ("See [a page](https://example.org/a b c) and {doc}`x <y>`.", [5]),
        (":class:`~a.B` is one word, $a + b = c$ as well.", [7]),
        ("| a | table |\n|---|---|\n| of | cells |", []),
        ("```python\nsome code here\n```\nText.", [1]),
        ("```{list-table}\n* - a cell\n```\nText.", [1]),
        (":::{note}\nIt counts.\n:::", [2]),
        (".. math::\n    a + b\n\nText.", [1]),
        (".. code-block:: bash\n\n   rftf finetune\n\nText.", [1]),
        ("As in::\n\n    some code\n\nText.", [2, 1]),
        ("====  ====\na     table\n====  ====\nof    cells\n====  ====\n\nText.", [1]),
        ("Args:\n    key: two words.\n        They go on.\n    other: one.", [2, 3, 1]),
        ("Call it:\n\n    rftf finetune\n\nText.", [2, 1]),
        ("Example:\n    >>> print(1)\n    1\n\nText.", [1]),
        ("-0.1 (-0.2 to +0.3) counts.", [5]),
    ],
)
def test_words_of_sentences(text, words):
    assert words_of(text) == words


def test_private_docstrings_do_not_count():
    source = (
        '"""Module."""\ndef f():\n    """F."""\ndef _g():\n    """G."""\nclass C:\n    """C."""\n'
    )
    assert [text for _, text in docstrings(source)] == ["Module.", "F.", "C."]


def test_a_long_sentence_is_found():
    assert words_of("word " * 41 + "end.") == [42]
