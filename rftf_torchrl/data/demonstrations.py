"""Demonstrations on disk, opened for reading."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tensordict import NestedKey, TensorDict
from torch import Tensor

from rftf_torchrl.data.format import DemonstrationError, Episode, Task, frames_folder
from rftf_torchrl.data.index import read_index
from rftf_torchrl.data.memory_map import open_frames
from rftf_torchrl.data.validation import frame_problems
from rftf_torchrl.digests import digest_problems
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.leftovers import DIGESTS_FILE


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """Episodes of frames, memory-mapped: only what is indexed is read.

    A selection shares the frames of the set that it was made from; ``episodes`` says which of
    them belong to it.

    Args:
        root: the folder.
        frames: tensordict [N], all frames of the folder; see ``rftf_torchrl.data``.
        episodes: the episodes of this selection.
        tasks: the tasks of the folder.
        simulator: the name of the simulator.
        action_repeat: simulator steps per recorded action.
        complete: False where the collection was interrupted.
        simulator_steps: steps that the recording used; 0 where that is not known.

    Example:
        >>> import tempfile
        >>> from rftf_torchrl import write_synthetic_demonstrations
        >>> root = write_synthetic_demonstrations(tempfile.mkdtemp() + "/demos")
        >>> demonstrations = load_demonstrations(root)
        >>> len(demonstrations.episodes), demonstrations.num_frames
        (4, 26)
        >>> train, held_out = demonstrations.split(0.5, generator=0)
        >>> len(train.episodes), len(held_out.episodes)
        (2, 2)
    """

    root: Path
    frames: TensorDict
    episodes: tuple[Episode, ...]
    tasks: tuple[Task, ...]
    simulator: str
    action_repeat: int
    complete: bool
    simulator_steps: int = 0

    @property
    def num_frames(self) -> int:
        """The number of frames in the selected episodes."""
        return sum(map(len, self.episodes))

    @cached_property
    def spans(self) -> Tensor:
        """The selected episodes' ``(start, stop)``, int64 [E, 2]."""
        spans = [(episode.start, episode.stop) for episode in self.episodes]
        return torch.tensor(spans, dtype=torch.int64).reshape(-1, 2)

    @cached_property
    def places(self) -> Tensor:
        """Where in ``frames`` the selected episodes' frames are, int64 [num_frames]."""
        pieces = [torch.arange(episode.start, episode.stop) for episode in self.episodes]
        return torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.int64)

    @nested_keys
    def check_keys(self, keys: Iterable[NestedKey]) -> None:
        """Stop at a key that the frames do not have.

        Args:
            keys: entries of a frame.

        Raises:
            KeyError: at the first of them.
        """
        for key in keys:
            if self.frames.get(key, None) is None:
                raise KeyError(f"Key {key!r} is not in the demonstrations of {self.root}.")

    def select(
        self,
        tasks: Collection[int | str] | None = None,
        episodes: Collection[int] | None = None,
        *,
        success: bool | None = None,
        split: str | None = None,
    ) -> Demonstrations:
        """Keep the episodes that meet every condition given.

        Args:
            tasks: ids or names of tasks.
            episodes: indices of episodes, as in ``Episode.index``.
            success: True for successes, False for failures.
            split: the name of a split.

        Returns:
            The selection, on the same frames.

        Raises:
            KeyError: at a task or an episode that is not in this set.
            ValueError: where no episode is left.
        """
        wanted = None if tasks is None else {self._task_id(task) for task in tasks}
        if episodes is not None:
            unknown = sorted(set(episodes) - {episode.index for episode in self.episodes})
            if unknown:
                raise KeyError(
                    f"No episodes {unknown} among the {len(self.episodes)} selected episodes of "
                    f"{self.root}."
                )
        kept = tuple(
            episode
            for episode in self.episodes
            if (wanted is None or episode.task_id in wanted)
            and (episodes is None or episode.index in episodes)
            and (success is None or episode.success == success)
            and (split is None or episode.split == split)
        )
        if not kept:
            raise ValueError(
                f"No episode of {self.root} has tasks={tasks}, episodes={episodes}, "
                f"success={success}, split={split!r}: loosen one of them."
            )
        return replace(self, episodes=kept)

    def split(
        self, held_out_fraction: float, generator: torch.Generator | int
    ) -> tuple[Demonstrations, Demonstrations]:
        """Divide the episodes in two, the same fraction of every task held out.

        Whole episodes are held out: frames of one episode are alike, so dividing within an episode
        would leak. Of a task with ``n >= 2`` episodes, ``round(held_out_fraction * n)`` are held
        out, at least 1 and at most ``n - 1``; a task's only episode stays in training.

        Args:
            held_out_fraction: between 0 and 1, exclusive.
            generator: the random generator, or its seed.

        Returns:
            ``(train, held_out)``, both in the order of ``episodes``.

        Raises:
            ValueError: at a fraction outside (0, 1), or where no task has two episodes.
        """
        if not 0 < held_out_fraction < 1:
            raise ValueError(
                f"held_out_fraction is {held_out_fraction}, expected a number between 0 and 1, "
                "exclusive."
            )
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        groups = [episode.task_id for episode in self.episodes]
        places = held_out_places(groups, held_out_fraction, generator)
        held_out = {self.episodes[place].index for place in places}
        if not held_out:
            raise ValueError(
                f"No task of {self.root} has two episodes, so none can be held out: record more."
            )
        return (
            replace(self, episodes=tuple(e for e in self.episodes if e.index not in held_out)),
            replace(self, episodes=tuple(e for e in self.episodes if e.index in held_out)),
        )

    def _task_id(self, task: int | str) -> int:
        for known in self.tasks:
            if task in (known.id, known.name):
                return known.id
        names = ", ".join(f"{known.id} ('{known.name}')" for known in self.tasks)
        raise KeyError(f"No task {task!r} in {self.root}; it has {names}.")


def held_out_places(groups: Sequence[Any], fraction: float, generator: torch.Generator) -> set[int]:
    """Draw the same fraction of every group, as :meth:`Demonstrations.split` does.

    Args:
        groups: the group of each episode; they can be sorted.
        fraction: between 0 and 1, exclusive.
        generator: the random generator.

    Returns:
        The places of the episodes that are held out.

    Example:
        >>> places = held_out_places(["a", "a", "b"], 0.5, torch.Generator().manual_seed(0))
        >>> len(places), 2 in places
        (1, False)
    """
    members: dict[Any, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    held_out: set[int] = set()
    for _, places in sorted(members.items()):
        order = torch.randperm(len(places), generator=generator).tolist()
        count = min(max(1, round(fraction * len(places))), len(places) - 1)
        held_out.update(places[position] for position in order[:count])
    return held_out


def load_demonstrations(root: str | Path, *, validate: bool = True) -> Demonstrations:
    """Open a folder of demonstrations. Nothing in it is unpickled or imported.

    Args:
        root: the folder that :class:`~rftf_torchrl.DemonstrationWriter` wrote.
        validate: check every frame and label, and the digest of every block of the files. Without
            it only the index and the sizes of the files are checked, which reads no frame.

    Returns:
        All episodes of the folder.

    Raises:
        FileNotFoundError: where the folder holds no demonstrations.
        DemonstrationError: with every violation of the format. Of the files: unreadable index,
            another format version, truncated files, missing keys, wrong dtypes or shapes. Of their
            content: an image where the index says that there is none, numbers that are not finite,
            empty instructions, unknown tasks, too short, overlapping or out-of-range episodes.
            Where files differ from their digests, they alone are listed.

    Example:
        >>> load_demonstrations("no-such-folder")
        Traceback (most recent call last):
            ...
        FileNotFoundError: No demonstrations in no-such-folder: demonstrations.json is missing.
    """
    root = Path(root)
    index, problems = read_index(root)
    if damaged := digest_problems(root, None if validate else _descriptions(root)):
        raise DemonstrationError(f"Demonstrations in {root}", damaged)
    frames, unreadable = open_frames(frames_folder(root))
    problems += unreadable
    if index is None or unreadable:
        raise DemonstrationError(f"Demonstrations in {root}", problems)
    if validate:
        problems += frame_problems(frames, index)
    if problems:
        raise DemonstrationError(f"Demonstrations in {root}", problems)
    return Demonstrations(
        root=root,
        frames=frames.lock_(),
        episodes=index.episodes,
        tasks=index.tasks,
        simulator=index.simulator,
        action_repeat=index.action_repeat,
        complete=index.complete,
        simulator_steps=index.simulator_steps,
    )


def _descriptions(root: Path) -> list[str]:
    """The files of a folder that say what its frames are."""
    found = (file.relative_to(root).as_posix() for file in sorted(root.rglob("*.json")))
    return [name for name in found if name != DIGESTS_FILE]
