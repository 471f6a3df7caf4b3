"""Policies of every kind are saved and loaded as one file, and a wrong file says what is wrong."""

import json
import re
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import (
    EncoderConfig,
    PolicySpec,
    gaussian_actor,
    load_policy,
    save_policy,
    spec_class,
)

SMALL = PolicySpec(EncoderConfig(image_size=None, state_dim=3, features=8), 2, 4)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, state):
        return self.second(self.first(state)).unsqueeze(-2)


@dataclass(frozen=True)
class TiedSpec:
    """A policy of somebody else's: tied weights, and a file."""

    kind: ClassVar[str] = f"{__name__}:TiedSpec"
    files: dict

    def build(self):
        return gaussian_actor(
            TensorDictModule(Tied(), ["state"], ["loc"]), chunk_size=1, action_dim=3
        )

    def to_dict(self):
        return {}

    @classmethod
    def from_dict(cls, spec):
        return cls(**spec)

    def observation_transform(self):
        return None


def without_digests(metadata):
    return {name: text for name, text in metadata.items() if not name.endswith("_sha256")}


def equal(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_small_policy_comes_back(tmp_path):
    policy = SMALL.build()
    save_policy(policy, SMALL, tmp_path / "policy.safetensors")
    loaded, spec = load_policy(tmp_path / "policy.safetensors")
    assert spec == SMALL
    assert equal(policy, loaded)
    assert spec.observation_transform() is None
    assert [path.name for path in tmp_path.iterdir()] == ["policy.safetensors"]


def test_a_policy_of_your_own_comes_back_with_its_files_and_tied_weights(tmp_path):
    spec = TiedSpec({"words/list.txt": b"open\0close", "empty": b""})
    policy, path = spec.build(), tmp_path / "policy.safetensors"
    save_policy(policy, spec, path)
    with safe_open(path, "pt") as file:
        assert sum(name.endswith("weight") for name in file.keys()) == 1  # noqa: SIM118
    loaded, found = load_policy(path, kind=TiedSpec.kind)
    assert found == spec
    assert equal(policy, loaded)
    network = loaded.module[0].module
    assert network.first.weight is network.second.weight


def test_every_wrong_weight_is_listed(tmp_path):
    path = tmp_path / "policy.safetensors"
    save_policy(SMALL.build(), SMALL, path)
    with safe_open(path, "pt") as file:
        metadata = without_digests(file.metadata())
    weights = load_file(path)
    bias = weights.pop("module.0.module.head.bias")
    weights["module.0.module.head.offset"] = bias
    weights["module.1.module.raw"] = torch.zeros(3, 4)
    save_file(weights, path, metadata)
    expected = (
        f"the weights in {path} are not those of the policy:\n"
        "  - missing: module.0.module.head.bias\n"
        "  - unexpected: module.0.module.head.offset\n"
        "  - module.1.module.raw: shape (3, 4), expected (2, 4)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        load_policy(path)


def test_a_file_of_another_version_is_named(tmp_path):
    path = tmp_path / "policy.safetensors"
    save_policy(SMALL.build(), SMALL, path)
    with safe_open(path, "pt") as file:
        metadata = without_digests(file.metadata())
    described = {**json.loads(metadata["policy"]), "new_option": 1}
    save_file(load_file(path), path, {**metadata, "policy": json.dumps(described)})
    message = f"{path} describes its policy in a way that this version does not know"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*new_option.*another one"):
        load_policy(path)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "value.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"format": "something"})
    expected = f"{path} is not a policy: expected format 'rftf_torchrl.policy.2', got 'something'"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        load_policy(path)
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        load_policy(path)
    expected = f"there is no file {tmp_path / 'nothing'}"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(expected)}$"):
        load_policy(tmp_path / "nothing")


def test_a_file_alone_makes_python_import_nothing(tmp_path):
    path = tmp_path / "policy.safetensors"
    save_file({}, path, {"format": "rftf_torchrl.policy.2", "kind": "a:B", "policy": "{}"})
    expected = (
        f"{path} is a policy of the kind 'a:B', and to build it, code that the file names would be "
        "imported and run: where you know that class, pass kind='a:B' (in the recipes "
        "policy.kind=a:B)."
    )
    for kind in (None, "small", "a:C"):
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
            load_policy(path, kind=kind)
    with pytest.raises(ValueError, match=r"^no policy spec at a:B \(No module named 'a'\)"):
        load_policy(path, kind="a:B")


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path):
    policy, path = SMALL.build(), tmp_path / "policy.safetensors"
    save_policy(policy, SMALL, path)
    with safe_open(path, "pt") as file:
        metadata = without_digests(file.metadata())
    weights = load_file(path)
    weights["module.0.module.head.bias"][1] = float("nan")
    save_file(weights, path, metadata)
    expected = (
        f"{path} has weights that are not finite: module.0.module.head.bias. Load an earlier file."
    )
    with pytest.raises(FloatingPointError, match=f"^{re.escape(expected)}$"):
        load_policy(path)
    path.unlink()
    with torch.no_grad():
        policy.module[0].module.head.weight.fill_(float("inf"))
        policy.module[0].module.head.bias[0] = float("nan")
    expected = (
        "the policy has weights that are not finite: module.0.module.head.weight, "
        "module.0.module.head.bias. Nothing was written; go back to the last checkpoint, and lower "
        "the learning rate."
    )
    with pytest.raises(FloatingPointError, match=f"^{re.escape(expected)}$"):
        save_policy(policy, SMALL, path)
    assert list(tmp_path.iterdir()) == []


class Misnamed(TiedSpec):
    kind: ClassVar[str] = "tied"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "smal",
            "unknown policy spec 'smal': choose from small, transformers, lerobot, gr_mg, seer, "
            "give your own as 'module:Name', or offer it as an entry point in the group "
            "'rftf_torchrl.policies'. Did you mean 'small'?",
        ),
        (
            "no_such_module:Spec",
            "no policy spec at no_such_module:Spec (No module named 'no_such_module'): make it "
            "importable, for example by its folder in PYTHONPATH.",
        ),
        (
            "subprocess:Popen",
            "subprocess:Popen is no policy spec: it lacks kind, build, to_dict, from_dict, "
            "observation_transform.",
        ),
        (
            f"{__name__}:Misnamed",
            f"{__name__}:Misnamed describes policies of the kind 'tied': give that name, or set "
            f"the class's attribute kind to '{__name__}:Misnamed'.",
        ),
    ],
)
def test_an_unknown_kind_is_refused(kind, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        spec_class(kind)
