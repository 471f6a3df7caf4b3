import random
import re

import numpy as np
import pytest
import torch

from rftf_torchrl import derive_seed, seed_everything


def test_seeds_never_change():
    assert derive_seed(0) == 6197007067532723406
    assert derive_seed(0, "collect", 7) == 717141503193530342


def test_every_part_of_the_path_matters():
    paths = [
        (0,),
        (1,),
        (0, "a"),
        (0, "b"),
        (0, "a", 0),
        (0, "a", 1),
        (0, "a", "1"),
        (0, "a1"),
        (0, "1", "a"),
        (0, ""),
        (-1,),
    ]
    assert len({derive_seed(*path) for path in paths}) == len(paths)


def test_seeds_have_63_bits():
    seeds = [derive_seed(seed, "x") for seed in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert 0.45 < np.mean([seed >= 2**62 for seed in seeds]) < 0.55
    assert torch.Generator().manual_seed(max(seeds)).initial_seed() == max(seeds)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("0",), "run_seed is '0', expected int."),
        ((True,), "run_seed is True, expected int."),
        ((0, "a", 1.5), "path[1] is 1.5, expected int or str."),
        ((0, None), "path[0] is None, expected int or str."),
    ],
)
def test_other_types_are_refused(path, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        derive_seed(*path)


def test_seed_everything_repeats_all_three():
    def draw(seed):
        seed_everything(seed)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first = draw(5)
    assert draw(5) == first
    other = draw(6)
    assert all(a != b for a, b in zip(first, other, strict=True))
