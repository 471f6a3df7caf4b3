"""Whether an evaluation is the benchmark's, and fingerprints of what decides its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

from rftf_torchrl.calvin.sequences import BENCHMARK_CHAINS, Chain, benchmark_sequences
from rftf_torchrl.calvin.tasks import TASKS
from rftf_torchrl.evaluation.fingerprint import package_versions

OFFICIAL_STEPS = 360
_OFFICIAL_SENTENCES = "29b49cf50d935d290522917b2fed6e059466622d62b5fac9861f2ac87d7ed44d"
_BENCHMARKS = "the benchmark's"


def chains_digest(chains: Sequence[Chain]) -> str:
    """A fingerprint of a list of chains."""
    return sha256(repr([(c.initial_state, c.tasks) for c in chains]).encode()).hexdigest()[:16]


def sentences_label(sentences: Mapping[str, Sequence[str]] | None) -> str:
    """Whose instructions they are: the benchmark's are known by their fingerprint."""
    if sentences is None:
        return "the library's own"
    spoken = "\n".join(sentences[task][0] for task in TASKS if task in sentences)
    digest = sha256(spoken.encode()).hexdigest()
    return _BENCHMARKS if digest == _OFFICIAL_SENTENCES else f"given ({digest[:16]})"


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
        'Official protocol: 1000 chains, 360 steps per subtask, scene D'
    """
    differences = []
    if steps != OFFICIAL_STEPS:
        differences.append(f"{steps} steps per subtask")
    first = _first_chain(chains)
    if first is None:
        differences.append("other chains than the benchmark's")
    elif first:
        last = first + len(chains) - 1
        differences.append(f"chains {first} to {last} of the {BENCHMARK_CHAINS}")
    elif len(chains) < BENCHMARK_CHAINS:
        differences.append(f"{len(chains)} of the {BENCHMARK_CHAINS} chains")
    if crashed:
        differences.append(f"{crashed} crashed chains are not counted")
    if scene != "D":
        differences.append(f"scene {scene}")
    if sentences not in (None, _BENCHMARKS):
        differences.append(f"other instructions than the benchmark's: {sentences}")
    if privileged is not None:
        differences.append(f"{privileged} sees the simulator's state")
    if differences:
        return f"NOT the official protocol: {'; '.join(differences)}"
    return f"Official protocol: {len(chains)} chains, {steps} steps per subtask, scene {scene}"


def _first_chain(chains: Sequence[Chain]) -> int | None:
    """The place in the benchmark's list from which on it has these chains, if any."""
    official, wanted = benchmark_sequences(), list(chains)
    starts = (n for n in range(BENCHMARK_CHAINS - len(wanted) + 1) if official[n] == wanted[0])
    return next((n for n in starts if official[n : n + len(wanted)] == wanted), None)


def versions() -> dict[str, str | None]:
    """What decides the results; the version of calvin_env, a clone, has always been the same."""
    return package_versions("pybullet", "calvin_env", clones=("calvin_env",))
