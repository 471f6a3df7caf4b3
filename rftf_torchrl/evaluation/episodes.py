"""Lists of episodes to evaluate on, and the same episodes with another task's instruction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from rftf_torchrl.envs.episodes import Episode

Sentences = Callable[[str], str]


def held_out_episodes(
    tasks: Sequence[str],
    per_task: int,
    *,
    first_seed: int = 0,
    instruction_of: Sentences | None = None,
) -> list[Episode]:
    """List the same seeds for every task.

    That the initial states were not trained on is up to the environment: run the list in one that
    was built with ``split="test"``.

    Args:
        tasks: names of tasks.
        per_task: episodes per task.
        first_seed: seeds are first_seed, ..., first_seed + per_task - 1.
        instruction_of: the instruction of a task; ``None`` leaves it to the environment.

    Returns:
        The episodes, one task after another.

    Raises:
        ValueError: if there is no task, one is named twice or ``per_task`` is below 1.

    Example:
        >>> [(e.task, e.seed) for e in held_out_episodes(["reach", "push"], 2, first_seed=7)]
        [('reach', 7), ('reach', 8), ('push', 7), ('push', 8)]
    """
    if per_task < 1:
        raise ValueError(f"per_task is {per_task}; expected at least one episode per task.")
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks is {list(tasks)}; expected one or more different names.")
    return [
        Episode(task, seed, None if instruction_of is None else instruction_of(task))
        for task in tasks
        for seed in range(first_seed, first_seed + per_task)
    ]


def swapped_instructions(
    episodes: Sequence[Episode],
    pairs: Iterable[tuple[str, str]],
    *,
    instruction_of: Sentences,
) -> list[Episode]:
    """Give every episode the instruction of its partner task: same scene and seed, other words.

    Args:
        episodes: what to change; episodes of tasks without a partner are left out.
        pairs: pairs of tasks that share a scene, each task in one pair at most.
        instruction_of: the instruction of a task.

    Returns:
        The changed episodes, in the order of `episodes`.

    Raises:
        ValueError: if a task is in two pairs, or no episode has a partner.

    Example:
        >>> episodes = held_out_episodes(["drawer-open"], 1)
        >>> swapped_instructions(
        ...     episodes,
        ...     [("drawer-open", "drawer-close")],
        ...     instruction_of={"drawer-close": "close the drawer"}.__getitem__,
        ... )
        [Episode(task='drawer-open', seed=0, instruction='close the drawer')]
    """
    partner: dict[str, str] = {}
    for first, second in pairs:
        for task, other in ((first, second), (second, first)):
            if task in partner:
                raise ValueError(
                    f"task {task!r} is in two pairs, with {partner[task]!r} and with {other!r}; "
                    "expected one partner per task. Choose one of the pairs."
                )
            partner[task] = other
    swapped = [
        replace(episode, instruction=instruction_of(partner[episode.task]))
        for episode in episodes
        if episode.task in partner
    ]
    if not swapped:
        raise ValueError(
            f"none of the tasks {sorted({episode.task for episode in episodes})} is in a pair; "
            "expected at least one whose scene it shares with another task."
        )
    return swapped
