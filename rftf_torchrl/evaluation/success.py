"""How often a policy succeeds, by task and over all, with every episode's outcome."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, ClassVar

from tensordict import TensorDictBase

from rftf_torchrl import keys
from rftf_torchrl.envs.collector import EpisodeCollector
from rftf_torchrl.envs.episodes import Episode, EpisodeResult
from rftf_torchrl.evaluation.report import markdown_table, number, percent, percent_interval
from rftf_torchrl.evaluation.trajectories import split_trajectories, succeeded
from rftf_torchrl.functional.intervals import wilson_interval

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodeOutcome:
    """How one episode ended.

    Attributes:
        task: the task's name.
        seed: the episode's seed.
        success: whether it reached success.
        decisions: its length.
    """

    task: str
    seed: int
    success: bool
    decisions: int


@dataclass(frozen=True)
class SuccessRate:
    """Successes out of trials; crashed episodes are no trials.

    Attributes:
        successes: episodes that reached success.
        trials: episodes that ended.
        crashed: episodes whose simulator died.
        decisions_to_success: mean length of the successes, NaN without any.
    """

    successes: int
    trials: int
    crashed: int
    decisions_to_success: float

    @property
    def rate(self) -> float:
        """Share of successes, NaN without a trial."""
        return self.successes / self.trials if self.trials else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the rate, NaN without a trial."""
        if not self.trials:
            return math.nan, math.nan
        return wilson_interval(self.successes, self.trials)

    def to_dict(self) -> dict[str, float]:
        """The counts, the rate and its interval as plain numbers."""
        low, high = self.interval
        return {
            "successes": self.successes,
            "trials": self.trials,
            "crashed": self.crashed,
            "rate": self.rate,
            "low": low,
            "high": high,
            "decisions_to_success": self.decisions_to_success,
        }


@dataclass(frozen=True)
class SuccessReport:
    """The outcomes of an evaluation; all rates follow from them.

    Attributes:
        outcomes: the episodes that ended, in the order in which they were asked for.
        crashed_episodes: (task, seed) of the episodes whose simulator died.
        env_steps: decisions in the episodes that ended.
    """

    name: ClassVar[str] = "success"
    outcomes: tuple[EpisodeOutcome, ...]
    crashed_episodes: tuple[tuple[str, int], ...] = ()
    env_steps: int = 0

    @property
    def crashed(self) -> int:
        """Number of crashed episodes."""
        return len(self.crashed_episodes)

    @property
    def tasks(self) -> dict[str, SuccessRate]:
        """The rate of each task."""
        names = [o.task for o in self.outcomes] + [task for task, _ in self.crashed_episodes]
        return {name: self._rate(name) for name in dict.fromkeys(names)}

    @property
    def pooled(self) -> SuccessRate:
        """The rate over all episodes, whatever their task."""
        return self._rate(None)

    @property
    def mean_rate(self) -> float:
        """Mean of the rates of the tasks with a trial; NaN without any."""
        known = [rate.rate for rate in self.tasks.values() if rate.trials]
        return fmean(known) if known else math.nan

    @property
    def without_episode(self) -> tuple[str, ...]:
        """The tasks of which no episode ended; they are not in the mean."""
        return tuple(name for name, rate in self.tasks.items() if not rate.trials)

    def _rate(self, task: str | None) -> SuccessRate:
        ended = [o for o in self.outcomes if task in (None, o.task)]
        lengths = [o.decisions for o in ended if o.success]
        crashed = sum(task in (None, name) for name, _ in self.crashed_episodes)
        return SuccessRate(
            len(lengths), len(ended), crashed, fmean(lengths) if lengths else math.nan
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, strings and lists, for ``results.json``."""
        return {
            "tasks": {name: rate.to_dict() for name, rate in self.tasks.items()},
            "mean_rate": self.mean_rate,
            **(
                {"tasks_without_episode": list(self.without_episode)}
                if self.without_episode
                else {}
            ),
            "pooled": self.pooled.to_dict(),
            "crashed": self.crashed,
            "env_steps": self.env_steps,
            "episodes": [asdict(outcome) for outcome in self.outcomes],
            "crashed_episodes": [{"task": t, "seed": s} for t, s in self.crashed_episodes],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SuccessReport:
        """Reads what :meth:`to_dict` wrote, e.g. to compare with an earlier evaluation.

        Raises:
            KeyError: if the episodes' outcomes are missing.
        """
        return cls(
            outcomes=tuple(EpisodeOutcome(**episode) for episode in data["episodes"]),
            crashed_episodes=tuple((e["task"], e["seed"]) for e in data["crashed_episodes"]),
            env_steps=data["env_steps"],
        )

    def markdown(self) -> str:
        """A table with a row per task, one for all episodes and one for the mean over tasks."""
        rows = [_row(name, rate) for name, rate in self.tasks.items()]
        rows.append(_row("all episodes", self.pooled))
        left = len(self.tasks) - len(self.without_episode)
        over = f"{left} of the {len(self.tasks)} tasks" if self.without_episode else "tasks"
        rows.append([f"mean over {over}", "", percent(self.mean_rate), "", "", ""])
        header = ["task", "successes", "rate", "95% interval", "decisions to success", "crashed"]
        return markdown_table(header, rows)


def _row(name: str, rate: SuccessRate) -> list[str]:
    return [
        name,
        f"{rate.successes} / {rate.trials}",
        percent(rate.rate) if rate.trials else "no episode",
        percent_interval(*rate.interval),
        number(rate.decisions_to_success, ".1f"),
        str(rate.crashed),
    ]


def evaluate_success(
    collector: EpisodeCollector,
    episodes: Sequence[Episode],
    *,
    seed: int = 0,
    deterministic: bool = True,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> SuccessReport:
    """Run the episodes and count successes, with Wilson's 95% intervals.

    Source of the intervals: Wilson, JASA 1927.

    Args:
        collector: runs episodes, see :class:`~rftf_torchrl.EpisodeCollector`.
        episodes: what to run, e.g. of :func:`held_out_episodes`.
        seed: seed of the policy's noise.
        deterministic: mean actions instead of samples.
        on_episode: called with each episode as it finishes, e.g. to advance a progress bar.

    Returns:
        The report.

    Raises:
        ValueError: if there is no episode.
    """
    if not episodes:
        raise ValueError("there is no episode to evaluate; give at least one.")
    trajectories = collector.collect(
        episodes, deterministic=deterministic, seed=seed, on_episode=on_episode
    )
    return success_report(trajectories, episodes)


def success_report(trajectories: TensorDictBase, episodes: Sequence[Episode]) -> SuccessReport:
    """Count the successes of collected trajectories, where these serve other ends as well.

    Args:
        trajectories: complete trajectories, batch [N], with ``("collector", "traj_ids")`` int64
            [N], an index into `episodes`, and ``("next", "success")``, ``("next", "done")`` bool
            [N, 1].
        episodes: what was asked for; those without a trajectory count as crashed.

    Returns:
        The report.

    Raises:
        KeyError: if an entry is missing.
        ValueError: if a trajectory is not complete, crashed or belongs to no episode.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from rftf_torchrl import Episode
        >>> flags = torch.tensor([[False], [True], [True]])
        >>> success = torch.tensor([[False], [True], [False]])
        >>> data = TensorDict({"next": {"done": flags, "success": success}}, [3])
        >>> data["collector", "traj_ids"] = torch.tensor([0, 0, 1])
        >>> report = success_report(data, [Episode("reach", 0), Episode("reach", 1)])
        >>> report.tasks["reach"].rate, report.pooled.decisions_to_success
        (0.5, 2.0)
    """
    parts = split_trajectories(trajectories)
    strange = sorted(set(parts) - set(range(len(episodes))))
    if strange:
        raise ValueError(
            f"trajectory {strange[0]} belongs to no episode: there are {len(episodes)}; expected "
            "the list that was collected."
        )
    outcomes = tuple(
        EpisodeOutcome(episodes[i].task, episodes[i].seed, succeeded(parts[i]), len(parts[i]))
        for i in sorted(parts)
    )
    crashed = tuple((e.task, e.seed) for i, e in enumerate(episodes) if i not in parts)
    report = SuccessReport(outcomes, crashed, len(trajectories))
    if crashed:
        logger.warning("%d of %d episodes crashed and do not count", len(crashed), len(episodes))
    if report.without_episode:
        logger.warning(
            "no episode of %s ended: the mean is over the other tasks",
            ", ".join(report.without_episode),
        )
    return report


def success_rates(data: TensorDictBase, task_names: Mapping[int, str]) -> dict[str, float]:
    """The share of complete trajectories that succeed, for a training log.

    Args:
        data: decisions [N], each trajectory with its last.
        task_names: names by ``"task_id"``.

    Returns:
        ``"success/<task>"`` for each task, NaN without a trajectory, and as ``"success"`` the mean
        over the tasks that have one.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> ends, success = torch.ones(2, 1).bool(), torch.tensor([[True], [False]])
        >>> data = TensorDict({"next": {"done": ends, "success": success}}, [2])
        >>> data["task_id"] = torch.zeros(2, 1, dtype=torch.int64)
        >>> success_rates(data, {0: "reach"})
        {'success': 0.5, 'success/reach': 0.5}
    """
    ends = data[data["next", "done"].squeeze(-1) != 0]
    success = ends["next", keys.SUCCESS].squeeze(-1).float()
    task_ids = ends[keys.TASK_ID].squeeze(-1)
    rates = {
        f"success/{name}": float(success[task_ids == number].mean())
        for number, name in task_names.items()
    }
    known = [rate for rate in rates.values() if not math.isnan(rate)]
    return {"success": sum(known) / len(known) if known else math.nan, **rates}
