"""The hash from which CALVIN's benchmark takes the seed of an initial scene."""

from __future__ import annotations

_PRIME = 0x01000193


def fnv1_32(text: str) -> int:
    """The FNV-1 hash that CALVIN's benchmark gets from the package pyhash.

    For every byte b of the text in UTF-16-LE: ``h = (h * 16777619 mod 2^32) xor b``, from h = 0
    instead of the usual offset basis.

    Source: Fowler, Noll, Vo, http://www.isthe.com/chongo/tech/comp/fnv; ``pyhash.fnv1_32()``.

    Args:
        text: what to hash.

    Returns:
        A number in [0, 2^32).

    Example:
        >>> fnv1_32("test")
        3910690890
    """
    value = 0
    for byte in text.encode("utf-16-le"):
        value = (value * _PRIME & 0xFFFFFFFF) ^ byte
    return value
