"""Which processes cannot be joined, and what one says of itself without others."""

import pytest
import torch

from rftf_torchrl.errors import UserError
from rftf_torchrl.training import processes
from rftf_torchrl.training.processes import first_says, is_first, joined, started_processes

REFUSED = {
    "one GPU for all": (
        "cuda:1",
        4,
        "device=cuda:1: of several processes each takes a GPU of its own: give device=cuda, or "
        "device=cpu",
    ),
    "too few GPUs": (
        "cuda",
        1,
        "torchrun has started 2 processes on this machine, which has 1 GPUs: give "
        "--nproc-per-node=1, or device=cpu",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_process_needs_a_gpu_of_its_own(case, monkeypatch):
    device, count, message = REFUSED[case]
    started = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "resolve_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert started_processes() == 2
    assert not is_first()
    with pytest.raises(UserError) as raised, joined(device, 1.0):
        pass
    assert str(raised.value) == message


def test_a_process_alone_is_the_first_and_hears_itself(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")  # as schedulers set it
    with joined("cuda:7", 1.0):
        assert is_first()
        assert first_says("a word") == "a word"
