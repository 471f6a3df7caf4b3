"""One spelling of an instruction, so that equal instructions give equal tokens."""

from __future__ import annotations

import string
import unicodedata
from typing import Any

from tensordict.utils import NestedKey

# Characters without width: soft hyphen, zero-width space, word joiner, byte-order mark.
_DROPPED = dict.fromkeys((0x00AD, 0x200B, 0x2060, 0xFEFF))
_TYPEWRITER = (
    dict.fromkeys(map(ord, "‘’‚‛′"), "'")
    | dict.fromkeys(map(ord, "“”„‟«»"), '"')
    | dict.fromkeys(map(ord, "‐‒–—―−"), "-")
)


def normal_sentence(text: str) -> str:
    """Spell an instruction in one way, however it was typed.

    The Unicode form is NFKC, quotes and dashes are those of a typewriter, characters without width
    are dropped, and every run of white space (no-break spaces and line ends too) is one space. A
    plain ASCII instruction stays what it was, but for its white space.

    Args:
        text: the instruction.

    Returns:
        The instruction, without white space at its ends.

    Source: Unicode Standard Annex 15, "Unicode Normalization Forms".

    Example:
        >>> normal_sentence("push the “red” block" + chr(13) + chr(10))
        'push the "red" block'
    """
    typed = unicodedata.normalize("NFKC", text.translate(_DROPPED)).translate(_TYPEWRITER)
    return " ".join(typed.split())


def words_of(text: str) -> list[str]:
    """The words of an instruction in lower case, without the punctuation around them.

    Args:
        text: the instruction, in any spelling.

    Returns:
        The words; what is nothing but punctuation is none.

    Example:
        >>> words_of("Don’t stop — open the “red” drawer.")
        ["don't", 'stop', 'open', 'the', 'red', 'drawer']
    """
    text = normal_sentence(text).lower()
    around = string.punctuation + "".join(c for c in text if unicodedata.category(c)[0] == "P")
    return [word for word in (found.strip(around) for found in text.split()) if word]


def sentences_of(entry: Any, key: NestedKey) -> list[str]:
    """The strings of an entry, however nested, in order and in one spelling.

    Raises:
        TypeError: if it holds something else.
    """
    if hasattr(entry, "tolist"):
        entry = entry.tolist()
    if isinstance(entry, str):
        return [normal_sentence(entry)]
    if not isinstance(entry, (list, tuple)):
        raise TypeError(f"{key!r} must hold strings, got {type(entry).__name__}.")
    return [text for item in entry for text in sentences_of(item, key)]
