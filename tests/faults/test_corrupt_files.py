"""The short run of ``corrupt_anywhere.py``: no damage loads as something else."""

import random

import pytest
from corrupt_anywhere import KINDS, try_kind


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_by_name_or_changes_nothing(tmp_path, kind):
    outcomes = try_kind(kind, 20, random.Random(kind), tmp_path)
    assert outcomes.keys() <= {"refused", "equal"}
    assert outcomes["refused"] > 5
