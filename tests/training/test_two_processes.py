"""Two processes with half of the batch each end where one process with all of it does."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _two_steps import WAYS, two_steps

pytestmark = pytest.mark.slow

HELPERS = Path(__file__).parents[1] / "helpers"
HAS_PEFT = importlib.util.find_spec("peft") is not None


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Parameters by way of training and process."""
    folder = tmp_path_factory.mktemp("parameters")
    ways = [way for way in WAYS if way != "lora" or HAS_PEFT]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(HELPERS / "_two_steps.py"), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "WAYS": ",".join(ways)},
        capture_output=True,
        text=True,
        timeout=120,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return {way: [torch.load(folder / f"{way}.{rank}.pt") for rank in range(2)] for way in ways}


@pytest.mark.recipe
@pytest.mark.parametrize("way", sorted(WAYS))
def test_two_processes_end_where_one_does(found, way):
    if way == "lora" and not HAS_PEFT:
        pytest.skip("peft is not installed")
    torch.manual_seed(1)
    expected = two_steps(way)
    for parameters in found[way]:
        assert parameters.keys() == expected.keys()
        for name, value in parameters.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    start, _ = WAYS[way]
    torch.manual_seed(0)
    untouched = dict(start().named_parameters())
    changed = [
        name
        for name, value in untouched.items()
        if value.requires_grad and not torch.equal(expected[f"actor_network.{name}"], value)
    ]
    assert changed, "the two steps move the policy"
