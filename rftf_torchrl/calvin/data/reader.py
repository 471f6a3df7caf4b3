"""Data in CALVIN's on-disk format, read piece by piece in our keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from rftf_torchrl import keys as k
from rftf_torchrl.calvin.data.format import (
    GRIPPER,
    INTERRUPTED_FILE,
    RELATIVE,
    ROBOT,
    SCENE,
    STATIC,
    frame_name,
    split_folder,
)
from rftf_torchrl.calvin.data.frames import read_frame
from rftf_torchrl.calvin.data.layout import read_episodes, read_scenes, read_steps
from rftf_torchrl.calvin.data.spans import CalvinSpan, read_spans
from rftf_torchrl.calvin.observation import state_vector
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.data.format import ACTION, DemonstrationError
from rftf_torchrl.nets.sentences import normal_sentence
from rftf_torchrl.transforms.instruction_tokens import HashTokenizer


class CalvinDataset:
    """One split of a dataset in CALVIN's on-disk format, read frame by frame when asked for.

    Every frame that is read is checked. Pickled files are read without running code from them.

    Args:
        root: the folder of the dataset.
        split: ``"training"`` or ``"validation"``.
        image_size: height and width of ``("observation", "image")``, to which the static camera's
            images are resized. None reads no image, which data without cameras need. Without any
            image, of the gripper's camera neither, the state holds the scene as well, as
            :class:`~rftf_torchrl.CalvinEnv`'s does.
        wrist_size: the same for ``("observation", "wrist_image")`` and the wrist camera.
        scene: the scene, for a split without ``scene_info.npy``.
        tokenizer: n strings -> ``(tokens [n, L], mask [n, L])``;
            :class:`~rftf_torchrl.HashTokenizer` by default.

    Attributes:
        folder: ``root / split``.
        episodes: int64 [E, 2], the first and the last frame of each episode.
        scenes: the scene of each episode.
        complete: False where :class:`CalvinWriter` was interrupted.
        simulator_steps: steps that the recording used; 0 where that is not known.

    Raises:
        FileNotFoundError: where there is no such folder.
        DemonstrationError: where the files that list episodes and scenes are not sound.
        ValueError: at an unknown split or scene, or sizes below 1.

    Example:
        >>> import tempfile
        >>> from rftf_torchrl import CalvinWriter
        >>> root = tempfile.mkdtemp()
        >>> with CalvinWriter(root) as writer:
        ...     for _ in range(3):
        ...         frame = writer.add_frame(np.zeros(15), np.zeros(24))
        ...     writer.annotate(frame - 2, frame + 1, "open_drawer", "pull the drawer open")
        >>> dataset = CalvinDataset(root)
        >>> dataset.read_span(dataset.spans[0])["action"].shape
        torch.Size([3, 7])
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "training",
        *,
        image_size: int | None = None,
        wrist_size: int | None = None,
        scene: Scene | None = None,
        tokenizer: Callable[[list[str]], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        for name, size in (("image_size", image_size), ("wrist_size", wrist_size)):
            if size is not None and size < 1:
                raise ValueError(f"{name} is {size}, expected 1 or more, or None.")
        self.folder = split_folder(root, split)
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"No CALVIN data in {self.folder}: expected a folder with ep_start_end_ids.npy and "
                "episode_*.npz files."
            )
        self.image_size = image_size
        self.wrist_size = wrist_size
        self.tokenizer = HashTokenizer() if tokenizer is None else tokenizer
        self.episodes = read_episodes(self.folder)
        self.scenes = read_scenes(self.folder, self.episodes, scene)
        self.complete = not (self.folder / INTERRUPTED_FILE).exists()
        self.simulator_steps = read_steps(self.folder)

    @cached_property
    def spans(self) -> tuple[CalvinSpan, ...]:
        """The annotated spans, read and checked at first use."""
        return read_spans(self.folder, self.episodes)

    def read_frames(self, start: int, stop: int) -> TensorDict:
        """Read frames that follow one another in one episode.

        Args:
            start: the number of the first frame.
            stop: one past the number of the last frame.

        Returns:
            TensorDict [T] with ``("observation", "state")`` float32 [T, S], ``"action"`` float32
            [T, 7] (CALVIN's relative actions), ``"robot_obs"`` float64 [T, 15], ``"scene_obs"``
            float64 [T, 24], and uint8 [T, 3, h, w] images where sizes were given.

        Raises:
            ValueError: where no episode has these frames.
            DemonstrationError: at a frame that cannot be used, with its file, episode and keys.
        """
        episode = self.episode_of(start)
        last = self.episodes[episode, 1]
        if not start < stop <= last + 1:
            raise ValueError(
                f"Frames {start} to {stop} (exclusive) of {self.folder}: expected an end from "
                f"{start + 1} to {last + 1}, where episode {episode} ends."
            )
        cameras = {STATIC: (k.IMAGE, self.image_size), GRIPPER: (k.WRIST_IMAGE, self.wrist_size)}
        wanted = [key for key, (_, size) in cameras.items() if size is not None]
        frames = [self._read(episode, number, wanted) for number in range(start, stop)]
        robot, scene, action = (
            np.stack([frame[key] for frame in frames]).astype(np.float64)
            for key in (ROBOT, SCENE, RELATIVE)
        )
        privileged = self.image_size is None and self.wrist_size is None
        state = state_vector(robot, scene, self.scenes[episode], privileged)
        found: dict[Any, Any] = {
            k.STATE: torch.as_tensor(state, dtype=torch.float32),
            ACTION: torch.from_numpy(action).float(),
            ROBOT: torch.from_numpy(robot),
            SCENE: torch.from_numpy(scene),
        }
        for key in wanted:
            name, size = cameras[key]
            found[name] = _resized([frame[key] for frame in frames], size)
        return TensorDict(found, batch_size=[len(frames)])

    def read_span(self, span: CalvinSpan) -> TensorDict:
        """Read an annotated span.

        Args:
            span: one of :attr:`spans`.

        Returns:
            What :meth:`read_frames` returns, with ``("instruction", "tokens")`` int64 [T, L],
            ``("instruction", "mask")`` bool [T, L] and ``"task_id"`` int64 [T, 1].

        Raises:
            DemonstrationError: at a frame that cannot be used, or an instruction that the tokenizer
                refuses.
        """
        try:
            tokens, mask = self.tokenizer([normal_sentence(span.sentence)])
        except ValueError as error:
            raise DemonstrationError(
                f"CALVIN data in {self.folder}", [f"annotation {span.index}: {error}"]
            ) from error
        frames = self.read_frames(span.start, span.stop)
        frames[k.TOKENS] = tokens.expand(len(frames), -1).clone()
        frames[k.TOKEN_MASK] = mask.expand(len(frames), -1).clone()
        frames[k.TASK_ID] = torch.full((len(frames), 1), span.task_id, dtype=torch.int64)
        return frames

    def windows(self, length: int, *, stride: int | None = None) -> Iterator[TensorDict]:
        """Go through all windows of the episodes, annotated or not.

        Args:
            length: frames of a window, T.
            stride: frames from one window to the next; ``length`` by default, so that none is read
                twice.

        Yields:
            What :meth:`read_frames` returns. An episode's rest that is shorter is left out.

        Raises:
            ValueError: at a length or stride below 1.
        """
        stride = length if stride is None else stride
        if length < 1 or stride < 1:
            raise ValueError(f"length is {length} and stride {stride}, expected 1 or more.")
        for first, last in self.episodes.tolist():
            for start in range(first, last + 2 - length, stride):
                yield self.read_frames(start, start + length)

    def episode_of(self, number: int) -> int:
        """The index of the episode that has a frame.

        Args:
            number: the frame's number.

        Returns:
            The position in ``episodes``.

        Raises:
            ValueError: where no episode has the frame.
        """
        found = np.flatnonzero((self.episodes[:, 0] <= number) & (number <= self.episodes[:, 1]))
        if not len(found):
            raise ValueError(
                f"Frame {number} is in no episode of {self.folder}: they have frames "
                f"{self.episodes.min()} to {self.episodes.max()}."
            )
        return int(found[0])

    def _read(self, episode: int, number: int, cameras: list[str]) -> dict[str, np.ndarray]:
        try:
            return read_frame(self.folder / frame_name(number), *cameras)
        except DemonstrationError as error:
            raise DemonstrationError(
                f"CALVIN data in {self.folder}, episode {episode}", error.problems
            ) from error


def _resized(pictures: list[np.ndarray], size: int | None) -> Tensor:
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    if size is None or images.shape[-2:] == (size, size):
        return images.contiguous()
    scaled = torch.nn.functional.interpolate(
        images.float(), (size, size), mode="bilinear", antialias=True
    )
    return scaled.round().clamp(0, 255).to(torch.uint8)
