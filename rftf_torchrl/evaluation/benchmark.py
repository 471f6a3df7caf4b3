"""A benchmark's episodes, one by one, in parallel, resumable, and its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase

from rftf_torchrl import keys
from rftf_torchrl.digests import bytes_digest, read_record, write_record
from rftf_torchrl.envs.episodes import Episode, EpisodePlayer
from rftf_torchrl.envs.shared_policy import SharedPolicy
from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.evaluation.fingerprint import policy_digest
from rftf_torchrl.evaluation.finished import FinishedFile
from rftf_torchrl.evaluation.parallel import play_unfinished
from rftf_torchrl.evaluation.success import EpisodeOutcome, SuccessReport
from rftf_torchrl.evaluation.trajectories import succeeded


@dataclass(frozen=True)
class BenchmarkReport(SuccessReport):
    """The outcomes of a benchmark's episodes, and how they were played.

    Attributes:
        protocol: whether the benchmark's protocol was kept to, and if not where it wasn't.
        settings: all that decided the results.
    """

    protocol: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """The protocol, the table of :class:`SuccessReport`, and the settings."""
        details = [f"- {name}: {value}" for name, value in self.settings.items()]
        return "\n\n".join([f"{self.protocol}.", super().markdown(), "\n".join(details)])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, strings and lists."""
        return {"protocol": self.protocol, **super().to_dict(), "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BenchmarkReport:
        """Reads what :meth:`to_dict` wrote.

        Raises:
            KeyError: if an entry is missing.
        """
        outcomes = SuccessReport.from_dict(data)
        return cls(
            **{each.name: getattr(outcomes, each.name) for each in fields(outcomes)},
            protocol=data["protocol"],
            settings=data["settings"],
        )

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, whole or not at all."""
        write_record(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> BenchmarkReport:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no such report; the message names it.
        """
        try:
            return cls.from_dict(read_record(path))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no report of a benchmark: {error!r}") from error


@dataclass(frozen=True)
class FinishedEpisode:
    """An episode's outcome with its place in the list that was asked for."""

    index: int
    task: str
    seed: int
    success: bool
    decisions: int

    @property
    def outcome(self) -> EpisodeOutcome:
        """The outcome alone."""
        return EpisodeOutcome(self.task, self.seed, self.success, self.decisions)


class EpisodeFile(FinishedFile[FinishedEpisode]):
    """A file with one finished episode a line, to which an evaluation that was stopped returns.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "episodes.jsonl"
        >>> EpisodeFile(path, {"seed": 0}).add(FinishedEpisode(7, "reach", 3, True, 12))
        >>> EpisodeFile(path, {"seed": 0}).results[7].success
        True
    """

    what = "episode"

    @staticmethod
    def read(data: Mapping[str, Any]) -> FinishedEpisode:
        """The episode of a line."""
        found = FinishedEpisode(**data)
        kinds = {each.name: type(getattr(found, each.name)).__name__ for each in fields(found)}
        if kinds != {each.name: each.type for each in fields(found)}:
            raise ValueError(f"an entry of episode {found.index} has another type")
        return found


def _play(
    stage: EpisodePlayer, index: int, episode: Episode, alive: Callable[[], None], **how: Any
) -> FinishedEpisode:
    trajectory = stage.play(index, episode, alive=alive, **how)
    if trajectory["next", keys.CRASHED].any():
        raise SimulatorCrashedError(f"episode {episode.seed} of task {episode.task!r} crashed")
    success = succeeded(trajectory)
    return FinishedEpisode(index, episode.task, episode.seed, success, len(trajectory))


def play_benchmark(
    make_env: Callable[[Episode], EnvBase],
    policy: TensorDictModuleBase,
    episodes: Sequence[Episode],
    *,
    settings: Mapping[str, Any],
    protocol: Callable[[int], str],
    deterministic: bool = True,
    seed: int = 0,
    workers: int = 2,
    serve: bool = False,
    batch: int | None = None,
    wait: float | None = None,
    timeout: float = 120.0,
    max_restarts: int = 10,
    resume_path: str | Path | None = None,
    on_start: Callable[[], object] | None = None,
    on_episode: Callable[[FinishedEpisode | None], None] | None = None,
) -> BenchmarkReport:
    """Play a benchmark's episodes one by one; the results do not depend on the number of workers.

    Each episode has its own noise. A served policy acts on batches, as in
    :class:`~rftf_torchrl.EpisodeCollector`, others on one observation at a time. If the policy has
    a method ``reset()``, that is called at the start of each episode. An episode whose simulator
    dies is played once more by a new worker; if that one dies too, it is reported as crashed and
    counts neither as done nor as failed.

    Args:
        make_env: picklable; builds the environment of an episode.
        policy: TensorDict policy on any device; workers hold a CPU copy, and with ``serve`` or
            without workers it acts where it is.
        episodes: what to play.
        settings: what decides the results besides what is given here, as plain values.
        protocol: what the report begins with, of the number of crashed episodes.
        deterministic: mean actions instead of samples.
        seed: of the policy's noise, 0 or more.
        workers: number of processes; 0 plays in this one.
        serve: whether the policy itself decides, in batches for all workers.
        batch: with ``serve``, most decisions at once; ``None`` for the number of workers.
        wait: with ``serve``, seconds for which a batch waits for further workers.
        timeout: seconds without a sign of life after which a worker counts as hung.
        max_restarts: how many dead or hung workers to replace before giving up.
        resume_path: a file to which finished episodes are added. If it exists, the episodes in it
            are not played again; it must be of the same evaluation.
        on_start: called before the first episode, once the file is found to be of this evaluation.
        on_episode: called with each as it comes, ``None`` for a crash; not with those of the file.

    Returns:
        The report.

    Raises:
        ValueError: if there is no episode, or for a file of another evaluation.
        TooManyCrashesError: when workers keep dying.
        RuntimeError: when a worker met a programming error.
    """
    if not episodes:
        raise ValueError("there is no episode to evaluate; give at least one.")
    shared = SharedPolicy(
        policy,
        workers=workers,
        serve=serve or not workers,
        batch=batch,
        wait=wait,
        timeout=timeout,
    )
    told = {
        **settings,
        "policy": policy_digest(policy),
        "deterministic": deterministic,
        "seed": seed,
        "episodes": len(episodes),
    }
    file = None
    if resume_path is not None:
        asked = repr([(each.task, each.seed, each.instruction) for each in episodes])
        tasks = ", ".join(dict.fromkeys(episode.task for episode in episodes))
        which = f"{tasks} ({bytes_digest(asked.encode())[:8]})"
        file = EpisodeFile(resume_path, told | {"tasks and states": which})
    if on_start is not None:
        on_start()
    finished, crashed = play_unfinished(
        partial(EpisodePlayer, make_env, shared.actor),
        partial(_play, deterministic=deterministic, seed=seed),
        episodes,
        file,
        on_episode,
        deciding=shared.server(deterministic),
        workers=workers,
        timeout=timeout,
        max_restarts=max_restarts,
    )
    return BenchmarkReport(
        tuple(episode.outcome for episode in finished),
        tuple((episodes[index].task, episodes[index].seed) for index in crashed),
        sum(episode.decisions for episode in finished),
        protocol(len(crashed)),
        told,
    )
