"""The short run of ``corrupt_anywhere.py``, and what digests stand on: the same bytes each time."""

import random
import time

import pytest
import torch
from corrupt_anywhere import KINDS, try_kind


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_by_name_or_changes_nothing(tmp_path, kind):
    outcomes = try_kind(kind, 20, random.Random(kind), tmp_path)
    assert outcomes.keys() <= {"refused", "equal"}
    assert outcomes["refused"] > 5


@pytest.mark.parametrize("kind", KINDS)
def test_saving_the_same_twice_gives_the_same_bytes(tmp_path, monkeypatch, kind):
    name, save, _ = KINDS[kind]
    found = []
    for number in range(2):
        place = tmp_path / str(number) / name
        place.parent.mkdir()
        torch.manual_seed(0)
        random.seed(0)
        save(place)
        files = [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.is_file())
        found.append({file.relative_to(place): file.read_bytes() for file in files})
        monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(10**9))
    assert found[0].keys() == found[1].keys()
    assert [file for file, content in found[0].items() if content != found[1][file]] == []
