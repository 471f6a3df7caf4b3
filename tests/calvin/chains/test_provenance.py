"""Which commits an evaluation ran at, and what stood before the policy."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torchrl.envs.transforms import Compose, StepCounter, Transform

from rftf_torchrl import HashTokenizer, InstructionTokens, ObservationHistory
from rftf_torchrl.calvin.chains.protocol import versions
from rftf_torchrl.evaluation.commits import file_commit, git_commit
from rftf_torchrl.evaluation.fingerprint import transform_label


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(
        ["git", *who, "-C", folder, *arguments],
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with a package that can be found, and one that is installed below it."""
    for folder in ("cloned_package", ".venv/installed_package"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").write_text("", encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "cloned_package")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "v1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / ".venv")
    return tmp_path


def test_a_clones_commit(clone):
    head = git(clone, "rev-parse", "HEAD")
    assert git_commit("cloned_package") == head
    (clone / "cloned_package" / "__init__.py").write_text("changed = True\n", encoding="utf-8")
    assert git_commit("cloned_package") == f"{head}-dirty"
    assert file_commit(clone / "cloned_package" / "__init__.py") == f"{head}-dirty"


def test_a_package_below_somebody_elses_clone_has_no_commit(clone):
    assert git_commit("installed_package") is None


def test_without_git_there_is_no_commit(clone, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit("cloned_package") is None


def test_commits_are_among_the_versions(monkeypatch):
    from rftf_torchrl.evaluation import fingerprint

    asked = {"rftf_torchrl": "a" * 40, "calvin_env": None}
    monkeypatch.setattr(fingerprint, "git_commit", asked.__getitem__)
    found = versions()
    assert found["rftf-torchrl commit"] == "a" * 40
    assert found["calvin_env commit"] is None
    assert found["torch"] == torch.__version__


class Settings(Transform):
    """A transform with one attribute."""

    def __init__(self, setting, in_keys=("observation",)):
        super().__init__(in_keys=list(in_keys), out_keys=["seen"])
        self.setting = setting


class Files:
    """What tokenizers and image processors have in common."""

    def __init__(self, content):
        self.content, self.name_or_path = content, str(np.random.default_rng().random())

    def save_pretrained(self, folder):
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
            file.write(self.content)


def scaled(value, factor):
    return value * factor


PAIRS = {
    "number": (Settings(1), Settings(1.5)),
    "array": (Settings(np.zeros(3)), Settings(np.ones(3))),
    "array's dtype": (Settings(np.zeros(2)), Settings(np.zeros(2, dtype=np.int64))),
    "tensor below": (Settings({"a": [torch.zeros(2)]}), Settings({"a": [torch.ones(2)]})),
    "weights": (
        Settings(torch.nn.Linear(1, 1).requires_grad_(False)),
        Settings(torch.nn.Linear(1, 1).requires_grad_(False)),
    ),
    "argument": (Settings(partial(scaled, factor=2)), Settings(partial(scaled, factor=3))),
    "function": (Settings(scaled), Settings(git)),
    "saved files": (Settings(Files("a")), Settings(Files("b"))),
    "keys": (Settings(1), Settings(1, in_keys=["action"])),
    "class": (StepCounter(), Settings(1)),
    "order": (Compose(StepCounter(), Settings(1)), Compose(Settings(1), StepCounter())),
    "tokenizer": (
        InstructionTokens(HashTokenizer(max_length=8)),
        InstructionTokens(HashTokenizer(max_length=9)),
    ),
    "history": (ObservationHistory(2, {"a": "b"}), ObservationHistory(3, {"a": "b"})),
}


@pytest.mark.parametrize("name", PAIRS)
def test_other_transforms_have_other_labels(name):
    one, other = PAIRS[name]
    assert transform_label(one) != transform_label(other)
    assert transform_label(one).startswith(f"{type(one).__name__} (")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Settings({"b": {3, 1, 2}, "a": np.arange(3)}),
        lambda: Settings(Files("a")),
        lambda: Settings(partial(scaled, factor=2)),
        lambda: Compose(InstructionTokens(HashTokenizer()), ObservationHistory(2, {"a": "b"})),
    ],
)
def test_equal_transforms_have_equal_labels(make):
    assert transform_label(make()) == transform_label(make())


def test_no_transform_has_no_label():
    assert transform_label(None) is None


def test_use_does_not_change_the_label():
    transform = InstructionTokens(HashTokenizer())
    before = transform_label(transform)
    transform._encode("open the drawer")
    assert transform_label(transform) == before


def test_what_contains_itself_has_a_label():
    transform = Settings([])
    transform.setting.append(transform.setting)
    assert transform_label(transform) is not None


@pytest.mark.slow
def test_the_label_is_the_same_in_another_process():
    code = (
        "from torchrl.envs.transforms import StepCounter\n"
        "from rftf_torchrl.evaluation.fingerprint import transform_label\n"
        "transform = StepCounter(3)\n"
        "transform.names = {'one', 'two', 'three'}\n"
        "print(transform_label(transform))"
    )
    labels = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
        ).stdout
        for seed in ("1", "2")
    }
    assert len(labels) == 1
