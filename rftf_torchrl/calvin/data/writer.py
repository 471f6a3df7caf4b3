"""Frames written as CALVIN's own loader reads them; an incomplete split is marked."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rftf_torchrl.calvin.data.checks import CAMERAS, frame_problems
from rftf_torchrl.calvin.data.describe import default_config, describe_split
from rftf_torchrl.calvin.data.format import (
    ABSOLUTE,
    GRIPPER,
    GRIPPER_DEPTH,
    INTERRUPTED_FILE,
    RELATIVE,
    ROBOT,
    SCENE,
    STATIC,
    STATIC_DEPTH,
    STEPS_FILE,
    frame_name,
    scene_name,
    split_folder,
    still_actions,
)
from rftf_torchrl.calvin.data.interrupted import Mark, Recorded, resume_recording
from rftf_torchrl.calvin.data.layout import read_steps
from rftf_torchrl.calvin.data.spans import CalvinSpan, span_problems
from rftf_torchrl.calvin.data.statistics import RunningStatistics
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.digests import write_digests
from rftf_torchrl.files import name_in_errors, reserve, write_text
from rftf_torchrl.leftovers import DIGESTS_FILE
from rftf_torchrl.new_folder import NewFolder

logger = logging.getLogger(__name__)

FIRST_FRAME = 64
"""CALVIN's loader refuses an episode or span that ends within its window of 32 frames."""

_ROOM = ".room"
_SAVE_EVERY = 60.0  # seconds


class CalvinWriter:
    """Write one split of a dataset in CALVIN's on-disk format.

    Frames collect in a hidden folder beside the split's; :meth:`close` adds the files that describe
    them and gives the folder its name in one step. If the ``with`` block ends by an exception or
    Ctrl-C, every frame that was added is kept the same way, the unfinished episode as a shorter
    one. A file ``interrupted.txt`` then says so (``CalvinDataset.complete``) and lets another
    writer continue (``resume``). If there are no frames, no folder is left. With ``resume``, all up
    to a recent :meth:`mark` is kept from a kill or a power cut, too.

    The sentence embeddings are :func:`hashed_embedding`'s, not MiniLM's. ``embeddings.npy``, which
    only CALVIN's own rollouts read, is not written.

    Args:
        root: the folder of the dataset.
        split: ``"training"`` or ``"validation"``; without ``resume``, the folder ``root / split``
            must not exist.
        scene: the scene of the first episodes, ``"A"`` to ``"D"``; see :meth:`set_scene`.
        config: what to write to ``.hydra/merged_config.yaml``, from which CALVIN's evaluation
            rebuilds the simulator. By default the scene's name and the cameras' sizes, which its
            loader does not need and its evaluation finds too little.
        resume: continue an interrupted split from its last :meth:`mark`, where there is one; what
            was recorded after the mark is removed. The split ends as it would have ended without
            the interruption.

    Attributes:
        simulator_steps: steps that the recording used, to be set by who records.

    Raises:
        FileExistsError: where the split's folder exists: data are never overwritten.
        FileNotFoundError: with ``resume``, where the split exists and is whole.
        DemonstrationError: with ``resume``, where what there is of the split can't be used.
        OSError: where it cannot be written.
        ValueError: at an unknown split or scene.

    Example:
        >>> import tempfile
        >>> root = tempfile.mkdtemp()
        >>> robot, action = np.zeros(15), np.array([0, 0, 0, 0, 0, 0, 1.0])
        >>> with CalvinWriter(root, scene="D") as writer:
        ...     for _ in range(4):
        ...         frame = writer.add_frame(robot, np.zeros(24), action, action)
        ...     last = writer.add_frame(robot, np.zeros(24))
        ...     writer.annotate(last - 4, last + 1, "open_drawer", "pull the drawer open")
        >>> np.load(Path(root, "training", "ep_start_end_ids.npy")).tolist()
        [[64, 68]]
        >>> sorted(np.load(Path(root, "training", "episode_0000064.npz")))
        ['actions', 'rel_actions', 'robot_obs', 'scene_obs']
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "training",
        *,
        scene: Scene = "D",
        config: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.folder = split_folder(root, split)
        self._scene = scene_name(scene)
        self._config = config
        self._closed = False
        self._new: NewFolder | None = None
        if resume and self.folder.exists():
            found = resume_recording(self.folder)
            (self.folder / DIGESTS_FILE).unlink(missing_ok=True)  # until close writes them again
            self._stage = self.folder
            self._scene = next(reversed(found.scenes), self._scene)
        else:
            found = Recorded(Mark(FIRST_FRAME), [], {}, [], RunningStatistics(), None)
            self._new = NewFolder(self.folder, "CALVIN data")
            self._stage = self._new.hidden
        self.scenes, self.episodes, self.spans = found.scenes, found.episodes, found.spans
        self._statistics, self._cameras, self._mark = found.statistics, found.cameras, found.mark
        self._resumable, self._saved = resume, time.monotonic()
        self._start = self._next = found.mark.frame
        self._keep_room()
        self.simulator_steps = read_steps(self._stage)

    @property
    def progress(self) -> dict[str, Any]:
        """A copy of what the last :meth:`mark` was told, empty before the first."""
        return deepcopy(self._mark.progress)

    def mark(self, **progress: Any) -> None:
        """End the open episode and say that all so far belongs together.

        Where the recording stops early, ``resume`` goes on from here. A resumable recording is
        saved now if that was a minute ago.

        Args:
            progress: what the recorder needs to know then; plain values, lists and dictionaries.

        Raises:
            RuntimeError: after :meth:`close`.
        """
        self._check_open("nothing can be marked")
        self.end_episode()
        self._mark = Mark(self._next, len(self.spans), deepcopy(progress))
        if self._resumable and self.episodes and time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()

    def add_frame(
        self,
        robot_obs: ArrayLike,
        scene_obs: ArrayLike,
        rel_action: ArrayLike | None = None,
        action: ArrayLike | None = None,
        *,
        rgb_static: np.ndarray | None = None,
        rgb_gripper: np.ndarray | None = None,
        depth_static: np.ndarray | None = None,
        depth_gripper: np.ndarray | None = None,
    ) -> int:
        """Check one frame and write it.

        Args:
            robot_obs: [15], the robot at the frame.
            scene_obs: [24], the scene at the frame.
            rel_action: [7], the relative action taken after the frame: six numbers in [-1, 1], and
                exactly 1 or -1 for the gripper.
            action: [7], where it led: :func:`absolute_action` of the next ``robot_obs``. Without
                both actions the frame says "stay", as for the last one of an episode.
            rgb_static: uint8 [3, H, W], the static camera. The first frame decides which of the
                four images all frames of the split have, and how large they are.
            rgb_gripper: uint8 [3, H, W], the wrist camera.
            depth_static: float32 [H, W], in metres.
            depth_gripper: float32 [H, W], in metres.

        Returns:
            The frame's number.

        Raises:
            DemonstrationError: with every violation; the frame is not written.
            OSError: where the disk is full.
            ValueError: with one action and not the other, or an image of another layout.
            RuntimeError: after :meth:`close`.
        """
        self._check_open("no frame can be added")
        if (rel_action is None) != (action is None):
            raise ValueError(
                "rel_action and action belong together: give both, or neither where nothing was "
                "done after the frame."
            )
        pictures = {
            STATIC: _channels_last(STATIC, rgb_static),
            GRIPPER: _channels_last(GRIPPER, rgb_gripper),
            STATIC_DEPTH: depth_static,
            GRIPPER_DEPTH: depth_gripper,
        }
        frame = {ROBOT: np.asarray(robot_obs), SCENE: np.asarray(scene_obs)}
        if rel_action is not None and action is not None:
            frame[RELATIVE], frame[ABSOLUTE] = np.asarray(rel_action), np.asarray(action)
        elif frame[ROBOT].shape == (15,):
            frame[RELATIVE], frame[ABSOLUTE] = still_actions(robot_obs)
        frame |= {key: np.asarray(value) for key, value in pictures.items() if value is not None}
        cameras = {key: value.shape for key, value in frame.items() if key in CAMERAS}
        problems = frame_problems(frame)
        if self._cameras is not None and not problems and cameras != self._cameras:
            problems = [
                f"images {_in_words(cameras)}, the frames before have "
                f"{_in_words(self._cameras)}: all frames of a split have the same cameras and sizes"
            ]
        if problems:
            raise DemonstrationError(f"Frame {self._next} for {self.folder}", problems)
        file = self._stage / frame_name(self._next)
        try:
            with name_in_errors(f"Cannot write {file}"), file.open("wb") as opened:
                np.savez_compressed(opened, **frame)  # type: ignore[arg-type]
        except OSError:
            file.unlink(missing_ok=True)
            raise
        self._cameras = cameras
        self._statistics.add(frame)
        number, self._next = self._next, self._next + 1
        return number

    def annotate(
        self, start: int, end: int, task: str, sentence: str, *, takeover: int = 0
    ) -> None:
        """Say what happens in some frames of one episode, the open one or one before.

        Args:
            start: the number of the first frame, as :meth:`add_frame` returned it.
            end: one past the number of the last frame, which should show the task done. CALVIN's
                own spans have 33 to 64 frames, and its loader skips those of fewer than 16.
            task: CALVIN's name of the task.
            sentence: the instruction.
            takeover: decisions that a policy took before the expert took over.

        Raises:
            DemonstrationError: with every violation; nothing is noted.
            RuntimeError: after :meth:`close`.
        """
        self._check_open("nothing can be annotated")
        episodes = [*self.episodes, (self._start, self._next - 1)]
        span = CalvinSpan(len(self.spans), start, end, task, sentence, takeover)
        problems = span_problems(span, np.array(episodes))
        if problems:
            raise DemonstrationError(f"Annotation for {self.folder}", problems)
        self._keep_room()
        self.spans.append(span)

    def end_episode(self) -> None:
        """End the open episode: the frame that follows starts another. Does nothing without one."""
        if self._next > self._start:
            last = self._next - 1
            self.scenes.setdefault(self._scene, [self._start, last])[1] = last
            self.episodes.append((self._start, last))
            self._start = self._next

    def set_scene(self, scene: Scene) -> None:
        """End the open episode and go on in another scene.

        Args:
            scene: ``"A"`` to ``"D"``.

        Raises:
            ValueError: at an unknown scene, and at one that was left before: in CALVIN's format
                the frames of a scene follow one another.
        """
        name = scene_name(scene)
        self.end_episode()
        if name != self._scene and name in self.scenes:
            raise ValueError(
                f"Scene {scene!r} was left before, and the frames of a scene follow one another: "
                "record all its episodes before the next scene."
            )
        self._scene = name

    def close(self, *, complete: bool = True) -> None:
        """End the open episode, describe the frames, and give the folder its name.

        A second call does nothing.

        Args:
            complete: False marks the split as an interrupted recording.

        Raises:
            ValueError: where no frame was added; nothing is left on disk.
            FileExistsError: where the folder appeared meanwhile; this one gets a name beside it.
        """
        if self._closed:
            return
        self.end_episode()
        if not self.episodes:
            self._discard()
            raise ValueError(f"No frame was added for {self.folder}: there is nothing to write.")
        (self._stage / frame_name(self._next)).unlink(missing_ok=True)
        (self._stage / _ROOM).unlink(missing_ok=True)
        self._describe()
        if not complete:
            self._mark.write(self._stage)
        if self._new is not None:
            self._new.publish()
        else:
            write_digests(self.folder, leave_out=[INTERRUPTED_FILE] if complete else [])
        if complete:  # a kill before leaves the mark, from which the split can go on
            (self.folder / INTERRUPTED_FILE).unlink(missing_ok=True)
        self._closed = True

    def _describe(self) -> None:
        config = self._config
        if config is None:
            config = default_config(self._scene, self._cameras or {})
        describe_split(
            self._stage,
            episodes=self.episodes,
            scenes=self.scenes,
            spans=self.spans,
            statistics=self._statistics,
            config=config,
        )
        if self.simulator_steps:
            write_text(self._stage / STEPS_FILE, f"{self.simulator_steps}\n")

    def _save(self) -> None:
        """Leave what a killed recording goes on from: as much as its mark names, or more."""
        self._describe()
        self._mark.write(self._stage)
        if self._new is not None:
            self._new.publish()
            self._new, self._stage = None, self.folder
            (self.folder / DIGESTS_FILE).unlink()  # until close writes them again
        self._saved = time.monotonic()

    def __enter__(self) -> CalvinWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            if not self.episodes and self._next == self._start:
                self._discard()
                return
            logger.warning("%s: interrupted, what was recorded is kept", self.folder)
        try:
            self.close(complete=kind is None)
        except KeyboardInterrupt:
            self.close(complete=kind is None)
            raise

    def _keep_room(self) -> None:
        """Hold the space that describing the frames takes, so that a full disk loses none."""
        with (
            name_in_errors(f"Cannot write CALVIN data to {self.folder}"),
            (self._stage / _ROOM).open("ab") as file,
        ):
            reserve(file, 2**18 + 2**12 * len(self.spans))

    def _check_open(self, consequence: str) -> None:
        if self._closed:
            raise RuntimeError(f"The writer of {self.folder} is closed: {consequence}.")

    def _discard(self) -> None:
        self._closed = True
        if self._new is not None:
            self._new.discard()
        else:
            shutil.rmtree(self._stage, ignore_errors=True)


def _channels_last(key: str, picture: np.ndarray | None) -> np.ndarray | None:
    if picture is None:
        return None
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise ValueError(f"{key} has shape {picture.shape}, expected [3, height, width].")
    return np.moveaxis(picture, 0, -1)


def _in_words(cameras: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} of shape {shape}" for name, shape in cameras.items()) or "none"
