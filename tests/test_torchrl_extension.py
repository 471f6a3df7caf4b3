"""TorchRL's compiled part, without which there is no prioritised replay buffer."""

import re
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import torchrl  # noqa: F401  # it loads its compiled part, or warns
from torchrl.data import PrioritizedSampler

PAGE = (Path(__file__).parents[1] / "docs" / "quickstart.md").read_text(encoding="utf-8")
PAIRS = {
    (torch_version, torchrl_version): answer == "yes"
    for torch_version, torchrl_version, answer in re.findall(
        r"^\| ([\d.]+) \| ([\d.]+) \| (yes|no) \|$", PAGE, re.MULTILINE
    )
}
HERE = (torch.__version__.split("+")[0], version("torchrl"))


def test_the_page_has_pairs_of_both_kinds():
    assert set(PAIRS.values()) == {True, False}


@pytest.mark.skipif(HERE not in PAIRS, reason=f"the page says nothing of torch, torchrl {HERE}")
def test_the_page_says_whether_it_loads_with_these_versions():
    refused = pytest.raises(RuntimeError, match="is not available")
    with nullcontext() if PAIRS[HERE] else refused:
        PrioritizedSampler(4, alpha=0.7, beta=0.9)
