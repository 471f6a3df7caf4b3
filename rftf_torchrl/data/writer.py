"""Demonstrations written to disk, so that a folder is either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

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
from rftf_torchrl.files import check_space, name_in_errors
from rftf_torchrl.new_folder import NewFolder


class DemonstrationWriter:
    """Write episodes into a new folder, in the format of ``rftf_torchrl.data``.

    Episodes collect in a hidden folder beside ``root``; :meth:`close` gives it its name in one
    step, with the digests that :func:`load_demonstrations` checks. If the ``with`` block ends by an
    exception (a full disk, for example) or Ctrl-C, the episodes that were added are kept in the
    same way, with ``complete: false``. Without any episode, no folder is left. What a killed
    process left hidden is removed by the next one that writes ``root``, and named in the log.

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
        self._frame: TensorDict | None = None
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
        takeover: int = 0,
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
            takeover: decisions that a policy took before the expert took over.

        Returns:
            The episode's record.

        Raises:
            DemonstrationError: with every violation; the episode is not written.
            OSError: where the disk is full; the episodes before are whole.
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
        start = self.episodes[-1].stop if self.episodes else 0
        self._append(frames, start)
        episode = Episode(
            index=index,
            task_id=task_id,
            start=start,
            stop=start + length,
            success=bool(success),
            goal_seed=goal_seed,
            split=split,
            takeover=takeover,
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
            FileExistsError: where ``root`` appeared meanwhile; this one gets a name beside it.
            OSError: where the disk is full; the hidden folder stays.
        """
        if self._closed or self._folder.published:
            return
        if not self.episodes:
            self._discard()
            raise ValueError(f"No episode was added for {self.root}: there is nothing to write.")
        frame, total = cast(TensorDict, self._frame), self.episodes[-1].stop
        self._cut(frame, total)
        with name_in_errors(f"Cannot write demonstrations to {self.root}"):
            frame.expand(total).memmap_like(frames_folder(self._folder.hidden))
        images = images_of(frame)
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
        write_index(self._folder.hidden, index)
        self._folder.publish()
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

    def _append(self, frames: TensorDictBase, start: int) -> None:
        """Write frames behind those that are there; never mapped, which a full disk would kill."""
        if self._frame is None:
            self._frame = frames[:1].clone()
        with name_in_errors(f"Cannot write demonstrations to {self.root}"):
            check_space(self._folder.hidden, sum(value.nbytes for _, value in _leaves(frames)))
            try:
                for name, value in _leaves(frames):
                    file = self._file(name)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with file.open("ab") as opened:
                        opened.truncate(start * value[0].nbytes)
                        opened.write(value.contiguous().numpy().data)
            except OSError:
                self._cut(frames, start)
                raise

    def _cut(self, frames: TensorDictBase, length: int) -> None:
        """Remove what an interrupted write left behind the last whole episode."""
        for name, value in _leaves(frames):
            if self._file(name).exists():
                os.truncate(self._file(name), length * value[0].nbytes)

    def _file(self, name: str) -> Path:
        return frames_folder(self._folder.hidden) / f"{name}.memmap"

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


def _leaves(frames: TensorDictBase) -> Iterator[tuple[str, Tensor]]:
    """The tensors of frames, by the name that their file has."""
    for key in frames.keys(include_nested=True, leaves_only=True):
        yield key if isinstance(key, str) else "/".join(key), frames[key]
