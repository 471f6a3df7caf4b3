import re

import pytest
import torch

from rftf_torchrl import autocast, resolve_device


def cuda(monkeypatch, count, bf16=True):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 1, "cuda"),
        ("cpu", 1, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_words_become_devices(monkeypatch, name, count, expected):
    cuda(monkeypatch, count)
    assert resolve_device(name) == torch.device(expected)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_missing_cuda_device(monkeypatch, name, count):
    cuda(monkeypatch, count)
    message = (
        f"Device '{name}' was asked for, but Torch sees {count} CUDA devices here: use 'auto' or "
        "'cpu', or install a CUDA build of Torch."
    )
    with pytest.raises(RuntimeError, match=re.escape(message)):
        resolve_device(name)


def test_missing_mps_device(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    message = "Device 'mps' was asked for, but Torch sees no MPS device here: use 'auto' or 'cpu'."
    with pytest.raises(RuntimeError, match=re.escape(message)):
        resolve_device("mps")


def test_unknown_word():
    message = "Device 'gpu' is not known: use 'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps'."
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve_device("gpu")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)],
)
def test_precision_on_the_cpu(precision, dtype):
    with autocast("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(
    ("precision", "bf16", "expected"),
    [("auto", True, True), ("auto", False, False), ("fp32", True, False), ("bf16", True, True)],
)
def test_precision_on_cuda(monkeypatch, precision, bf16, expected):
    cuda(monkeypatch, 1, bf16)
    assert isinstance(autocast("cuda", precision), torch.autocast) == expected


def test_bad_precision(monkeypatch):
    cuda(monkeypatch, 1, bf16=False)
    with pytest.raises(
        RuntimeError, match=re.escape("cuda has no bf16: use precision 'fp32' or 'auto'.")
    ):
        autocast("cuda", "bf16")
    with pytest.raises(
        ValueError, match=re.escape("precision is 'fp16', expected 'auto', 'fp32' or 'bf16'.")
    ):
        autocast("cpu", "fp16")
