"""Safetensors files: equal contents are equal bytes, and a changed byte is refused."""

import json
import re
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rftf_torchrl import read_made_by
from rftf_torchrl.weights_file import made_by_entry, read_safetensors, write_safetensors

SAVE = """
import sys, torch
from rftf_torchrl.weights_file import write_safetensors
torch.manual_seed(0)
tensors = {name: torch.randn(3) for name in "abcdef"}
write_safetensors(sys.argv[1], tensors, {name: name for name in "uvwxyz"})
"""
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


def test_every_dtype_and_shape_comes_back_and_others_can_read_it(tmp_path):
    tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4)}
    tensors["turned"] = torch.arange(6.0).reshape(2, 3).T
    file = tmp_path / "one.safetensors"
    write_safetensors(file, tensors, {"text": "Grüße \x00 \"'\\"})
    found, metadata = read_safetensors(file)
    for read in (found, load_file(file)):
        assert read.keys() == tensors.keys()
        for name, value in tensors.items():
            assert read[name].dtype == value.dtype
            assert torch.equal(read[name], value), name
    assert metadata["text"] == "Grüße \x00 \"'\\"


@pytest.mark.slow
def test_equal_contents_are_equal_bytes_in_every_process(tmp_path):
    for name in ("first", "second"):
        subprocess.run([sys.executable, "-c", SAVE, str(tmp_path / name)], check=True)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_tensor_with_two_names_is_stored_once(tmp_path):
    file, weight = tmp_path / "one.safetensors", torch.randn(100)
    write_safetensors(file, {"b": weight, "a": weight, "part": weight[:50]}, {})
    assert load_file(file).keys() == {"b", "part"}
    found, _ = read_safetensors(file)
    assert torch.equal(found["a"], weight)
    assert torch.equal(found["b"], weight)
    assert torch.equal(found["part"], weight[:50])


def test_another_dtype_is_named(tmp_path):
    message = "'z' is torch.complex64, which a safetensors file cannot hold."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        write_safetensors(tmp_path / "one", {"z": torch.zeros(1, dtype=torch.complex64)}, {})
    assert list(tmp_path.iterdir()) == []


def message(file, what):
    return (
        f"{file} is damaged: {what}. Copy it again from where it is whole, or make it again; where "
        "you changed it yourself, leave out its entries header_sha256 and data_sha256."
    )


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (b'"made_by": "{', "its description differs from its digest"),
        (b'"header_sha256"', "its description differs from its digest"),
        (b'"data_sha256"', "its description differs from its digest"),
        (None, "its tensors differ from their digest"),
    ],
)
def test_one_changed_bit(tmp_path, place, what):
    file = tmp_path / "one.safetensors"
    write_safetensors(file, {"weight": torch.ones(4)}, made_by_entry({"seed": 3}))
    content = bytearray(file.read_bytes())
    content[-5 if place is None else content.index(place) + 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(message(file, what))}$"):
        read_safetensors(file)
    if place is None:
        assert read_made_by(file) == {"seed": 3}
    else:
        with pytest.raises(ValueError, match=f"^{re.escape(message(file, what))}$"):
            read_made_by(file)


def test_no_byte_is_outside_of_the_digests(tmp_path):
    file = tmp_path / "one.safetensors"
    write_safetensors(file, {"weight": torch.ones(2)}, {"text": "a"})
    content = file.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 4
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=re.escape(str(file))):
            read_safetensors(file)


def test_a_file_of_an_earlier_version_or_another_library_is_taken_as_it_is(tmp_path):
    file = tmp_path / "one.safetensors"
    save_file({"a": torch.ones(2)}, file, {"made_by": json.dumps({"seed": 1})})
    found, metadata = read_safetensors(file)
    assert torch.equal(found["a"], torch.ones(2))
    assert metadata == {"made_by": '{"seed": 1}'}
    assert read_made_by(file) == {"seed": 1}
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == metadata
