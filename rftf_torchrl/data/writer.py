"""Demonstrations written to disk, so that a folder is either whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase

from rftf_torchrl import keys
from rftf_torchrl.data.checks import content_problems, entry_problems, picture_problems
from rftf_torchrl.data.format import (
    ACTION_IS_PAD,
    EPISODE,
    RECORDED_ENTRIES,
    DemonstrationError,
    Entry,
    Episode,
    Task,
    as_tasks,
    frames_folder,
)
from rftf_torchrl.data.images import IMAGE_SIZES, expected_entries, images_of
from rftf_torchrl.data.index import Index, write_index
from rftf_torchrl.files import NewFolder


class DemonstrationWriter:
    """Write episodes into a new folder, in the format of ``rftf_torchrl.data``.

    Episodes collect in a hidden folder beside ``root``; :meth:`close` joins them and gives the
    result its name in one step. Where the ``with`` block ends by an exception or Ctrl-C, the
    episodes that were added are kept the same way, with ``complete: false``; where there is none,
    nothing is left. Joining needs the space of the data twice.

    Args:
        root: the folder to make. It must not exist.
        tasks: every task that an episode may have: ``rftf_torchrl.data.format.Task``, or records
            ``{id, name, instruction}``.
        simulator: the name of the simulator.
        action_repeat: simulator steps per recorded action.

    Attributes:
        simulator_steps: steps that the recording used, to be set by who records.

    Raises:
        FileExistsError: where ``root`` exists: data are never overwritten.
        OSError: where the folder cannot be written.
        DemonstrationError: at tasks without instruction or with the same id.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp()) / "demos"
        >>> tasks = [{"id": 0, "name": "reach-v3", "instruction": "reach the red dot"}]
        >>> action = torch.zeros(5, 4)
        >>> action[:-1] = 0.5
        >>> episode = TensorDict(
        ...     {
        ...         "observation": {
        ...             "image": torch.zeros(5, 3, 8, 8, dtype=torch.uint8),
        ...             "state": torch.zeros(5, 39),
        ...         },
        ...         "instruction": {
        ...             "tokens": torch.ones(5, 6, dtype=torch.int64),
        ...             "mask": torch.ones(5, 6, dtype=torch.bool),
        ...         },
        ...         "action": action,
        ...     },
        ...     batch_size=[5],
        ... )
        >>> with DemonstrationWriter(root, tasks=tasks, simulator="metaworld") as writer:
        ...     record = writer.add_episode(episode, task_id=0, success=True)
        >>> TensorDict.load_memmap(root / "frames")["action_is_pad"].flatten().tolist()
        [False, False, False, False, True]
    """

    def __init__(
        self,
        root: str | Path,
        *,
        tasks: Iterable[Task | Mapping[str, Any]],
        simulator: str,
        action_repeat: int = 1,
    ) -> None:
        self.root = Path(root)
        self.tasks = as_tasks(tasks)
        self.simulator = simulator
        self.action_repeat = action_repeat
        self.simulator_steps = 0
        self.episodes: list[Episode] = []
        self._sizes: dict[str, int] = {}
        self._closed = False
        self._folder = NewFolder(self.root, "demonstrations")

    def add_episode(
        self,
        tensordict: TensorDictBase,
        *,
        task_id: int,
        success: bool,
        goal_seed: int | None = None,
        split: str = "train",
    ) -> Episode:
        """Check one episode and write it.

        The writer adds ``"task_id"``, ``"episode"`` and ``"action_is_pad"``; other entries that the
        format does not know are left out.

        Args:
            tensordict: [T] frames with image, state, instruction and action, ``T >= 2``. The last
                frame is the observation after the last action, and its action is zero. The image
                may be absent, and a wrist image be there, in all episodes of the folder or in none.
            task_id: the id of one of the tasks.
            success: whether the episode reached its goal.
            goal_seed: the seed that the goal was drawn with.
            split: the name of the part of the data that the episode belongs to.

        Returns:
            The episode's record.

        Raises:
            DemonstrationError: with every violation; the episode is not written.
            RuntimeError: after :meth:`close`.
        """
        if self._closed:
            raise RuntimeError(f"The writer of {self.root} is closed: no episode can be added.")
        index = len(self.episodes)
        problems = self._problems(tensordict, task_id)
        if problems:
            raise DemonstrationError(f"Episode {index} for {self.root}", problems)
        length = len(tensordict)
        entries = expected_entries(RECORDED_ENTRIES, images_of(tensordict))
        frames = tensordict.select(*(key for key, _, _ in entries)).detach().cpu()
        frames[keys.TASK_ID] = torch.full((length, 1), task_id, dtype=torch.int64)
        frames[EPISODE] = torch.full((length, 1), index, dtype=torch.int64)
        frames[ACTION_IS_PAD] = torch.zeros(length, 1, dtype=torch.bool)
        frames[ACTION_IS_PAD][-1] = True
        frames.memmap(self._part(index))
        start = self.episodes[-1].stop if self.episodes else 0
        episode = Episode(
            index=index,
            task_id=task_id,
            start=start,
            stop=start + length,
            success=bool(success),
            goal_seed=goal_seed,
            split=split,
        )
        self.episodes.append(episode)
        self._remember_sizes(tensordict, entries)
        return episode

    def close(self, *, complete: bool = True) -> None:
        """Join the episodes and give the folder its name; a second call does nothing.

        Args:
            complete: False marks the folder as an interrupted collection.

        Raises:
            ValueError: where no episode was added; nothing is left on disk.
            FileExistsError: where ``root`` appeared meanwhile; the hidden folder stays.
        """
        if self._closed:
            return
        if not self.episodes:
            self._discard()
            raise ValueError(f"No episode was added for {self.root}: there is nothing to write.")
        whole = self._folder.hidden / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        total = self.episodes[-1].stop
        first = TensorDict.load_memmap(self._part(0))
        joined = first[:1].expand(total).memmap_like(frames_folder(whole))
        for episode in self.episodes:
            part = TensorDict.load_memmap(self._part(episode.index))
            joined[episode.start : episode.stop] = part
        images = images_of(first)
        index = Index(
            complete=complete,
            simulator=self.simulator,
            state_dim=self._sizes["S"],
            action_dim=self._sizes["A"],
            action_repeat=self.action_repeat,
            num_frames=total,
            tasks=self.tasks,
            episodes=tuple(self.episodes),
            simulator_steps=self.simulator_steps,
            **{
                field: (self._sizes[height], self._sizes[width]) if key in images else None
                for key, (field, (height, width)) in IMAGE_SIZES.items()
            },
        )
        write_index(whole, index)
        self._folder.publish(whole.name)
        self._closed = True

    def __enter__(self) -> DemonstrationWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and not self.episodes:
            self._discard()
            return
        try:
            self.close(complete=kind is None)
        except KeyboardInterrupt:
            self.close(complete=kind is None)
            raise

    def _discard(self) -> None:
        self._closed = True
        self._folder.discard()

    def _part(self, index: int) -> Path:
        return self._folder.hidden / "episodes" / f"{index:06d}"

    def _problems(self, tensordict: TensorDictBase, task_id: int) -> list[str]:
        if tensordict.batch_dims != 1:
            return [f"batch size {tuple(tensordict.batch_size)}, expected one dimension, [T]"]
        known = [task.id for task in self.tasks]
        problems = [] if task_id in known else [f"unknown task_id {task_id}, the tasks are {known}"]
        images = images_of(tensordict)
        known_images = [key for key, (_, (h, _)) in IMAGE_SIZES.items() if h in self._sizes]
        before = known_images if self.episodes else images
        for key in IMAGE_SIZES:
            if (key in images) != (key in before):
                found = "there, but not in" if key in images else "missing, but there in"
                problems.append(
                    f"key {key!r}: {found} the episodes before; record all episodes of a folder "
                    "with images or all without"
                )
        expected = expected_entries(RECORDED_ENTRIES, set(images) & set(before))
        entries = entry_problems(tensordict, expected, self._sizes)
        if len(tensordict) < 2:
            problems.append(f"{len(tensordict)} frames, expected 2 or more: order needs two")
        if entries:
            return problems + entries
        return problems + picture_problems(tensordict) + content_problems(tensordict)

    def _remember_sizes(self, tensordict: TensorDictBase, entries: Iterable[Entry]) -> None:
        for key, _, trailing in entries:
            for size, got in zip(trailing, tensordict[key].shape[1:], strict=True):
                if isinstance(size, str):
                    self._sizes[size] = got
