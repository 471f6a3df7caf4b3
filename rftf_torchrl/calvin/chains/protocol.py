"""Whether an evaluation is the benchmark's, and fingerprints of what decides its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

import torch

from rftf_torchrl.calvin.sequences import BENCHMARK_CHAINS, Chain, benchmark_sequences
from rftf_torchrl.calvin.tasks import TASKS
from rftf_torchrl.evaluation.commits import git_commit

OFFICIAL_STEPS = 360
_OFFICIAL_SENTENCES = "29b49cf50d935d290522917b2fed6e059466622d62b5fac9861f2ac87d7ed44d"
_BENCHMARKS = "the benchmark's"
_CLONES = ("rftf-torchrl", "calvin_env")
_PACKAGES = ("rftf-torchrl", "torch", "torchrl", "numpy", "pybullet", "calvin_env")


def chains_digest(chains: Sequence[Chain]) -> str:
    """A fingerprint of a list of chains."""
    return sha256(repr([(c.initial_state, c.tasks) for c in chains]).encode()).hexdigest()[:16]


def policy_digest(policy: torch.nn.Module) -> str:
    """A fingerprint of a policy's class and weights."""
    digest = sha256(type(policy).__qualname__.encode())
    for name, value in policy.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def sentences_label(sentences: Mapping[str, Sequence[str]] | None) -> str:
    """Whose sentences they are: the benchmark's are known by their fingerprint."""
    if sentences is None:
        return "the library's own"
    spoken = "\n".join(sentences[task][0] for task in TASKS if task in sentences)
    digest = sha256(spoken.encode()).hexdigest()
    return _BENCHMARKS if digest == _OFFICIAL_SENTENCES else f"given ({digest[:16]})"


def function_name(function: Callable[..., Any]) -> str:
    """A function with its bound arguments, without addresses in memory."""
    if isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items())]
        return f"{function_name(function.func)}({', '.join(given)})"
    return getattr(function, "__qualname__", type(function).__qualname__)


def protocol_label(
    *,
    steps: int,
    chains: Sequence[Chain],
    crashed: int,
    scene: str,
    sentences: str | None,
    privileged: str | None,
) -> str:
    """The benchmark's protocol, or in what an evaluation differs from it.

    Args:
        steps: control steps for each task.
        chains: what was played.
        crashed: how many of them are not counted.
        scene: letter of the scene.
        sentences: of :func:`sentences_label`; ``None`` where nobody listens.
        privileged: who saw the simulator's state, if anybody did.

    Example:
        >>> chains = benchmark_sequences()
        >>> protocol_label(steps=360, chains=chains, crashed=0, scene="D",
        ...                sentences="the benchmark's", privileged=None)
        'Official protocol: 1000 chains, 360 steps a subtask, scene D'
    """
    differences = []
    if steps != OFFICIAL_STEPS:
        differences.append(f"{steps} steps a subtask")
    if list(chains) != benchmark_sequences()[: len(chains)]:
        differences.append("other chains than the benchmark's")
    elif len(chains) < BENCHMARK_CHAINS:
        differences.append(f"{len(chains)} of the {BENCHMARK_CHAINS} chains")
    if crashed:
        differences.append(f"{crashed} crashed chains are not counted")
    if scene != "D":
        differences.append(f"scene {scene}")
    if sentences not in (None, _BENCHMARKS):
        differences.append(f"other sentences than the benchmark's: {sentences}")
    if privileged is not None:
        differences.append(f"{privileged} sees the simulator's state")
    if differences:
        return f"NOT the official protocol: {'; '.join(differences)}"
    return f"Official protocol: {len(chains)} chains, {steps} steps a subtask, scene {scene}"


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide the results, and commits of clones.

    The version of calvin_env has always been the same, and this library's is between releases;
    their commits are ``None`` where they run from no clone.
    """
    found: dict[str, str | None] = {"python": python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    commits = {name: git_commit(name.replace("-", "_")) for name in _CLONES}
    return found | {f"{name} commit": commit for name, commit in commits.items()}
