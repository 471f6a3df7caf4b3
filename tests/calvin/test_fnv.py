"""The benchmark's hash."""

import pytest

from rftf_torchrl import fnv1_32


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0),
        ("a", 0x61 * 0x01000193 % 2**32),
        ("test", 3910690890),
    ],
)
def test_hash(text, value):
    assert fnv1_32(text) == value
