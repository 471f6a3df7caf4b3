"""Frames written as CALVIN's own loader reads them; a split is either whole or not there."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike

from rftf_torchrl.data.calvin.checks import CAMERAS, camera_problems, vector_problems
from rftf_torchrl.data.calvin.embedding import EMBEDDING_DIM, hashed_embedding
from rftf_torchrl.data.calvin.format import (
    ABSOLUTE,
    ANNOTATIONS_FILE,
    CONFIG_FILE,
    EPISODES_FILE,
    GRIPPER,
    GRIPPER_DEPTH,
    INTERRUPTED_FILE,
    LENGTHS_FILE,
    RELATIVE,
    ROBOT,
    SCENE,
    SCENES_FILE,
    STATIC,
    STATIC_DEPTH,
    STATISTICS_FILE,
    frame_name,
    scene_name,
    split_folder,
    still_actions,
)
from rftf_torchrl.data.calvin.spans import CalvinSpan, span_problems
from rftf_torchrl.data.calvin.statistics import RunningStatistics
from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.envs.calvin.settings import Scene

logger = logging.getLogger(__name__)

FIRST_FRAME = 64


class CalvinWriter:
    """Write one split of a dataset in CALVIN's on-disk format.

    Frames collect in a hidden folder beside the split's; :meth:`close` adds the files that describe
    them and gives the folder its name in one step. Where the ``with`` block ends by an exception or
    Ctrl-C, every frame that was added is kept the same way, the unfinished episode as a shorter
    one, and a file ``interrupted.txt`` says so (:attr:`CalvinDataset.complete`); where there is
    none, nothing is left.

    The sentence embeddings are :func:`hashed_embedding`'s, not MiniLM's. ``embeddings.npy``, which
    only CALVIN's own rollouts read, is not written.

    Args:
        root: the folder of the dataset.
        split: ``"training"`` or ``"validation"``; the folder ``root / split`` must not exist.
        scene: the scene of the first episodes, ``"A"`` to ``"D"``; see :meth:`set_scene`.
        first_frame: the number of the first frame. CALVIN's loader refuses a split in which an
            episode or a span ends at a number that is not above its window of 32 frames: the
            default keeps short first episodes readable.
        config: what to write to ``.hydra/merged_config.yaml``, from which CALVIN's evaluation
            rebuilds the simulator. By default the scene's name and the cameras' sizes, which its
            loader does not need and its evaluation finds too little.

    Raises:
        FileExistsError: where the split's folder exists: data are never overwritten.
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
        first_frame: int = FIRST_FRAME,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = split_folder(root, split)
        self.scenes: dict[str, list[int]] = {}
        self.episodes: list[tuple[int, int]] = []
        self.spans: list[CalvinSpan] = []
        self._scene = scene_name(scene)
        self._config = config
        self._start = self._next = first_frame
        self._cameras: dict[str, tuple[int, ...]] | None = None
        self._statistics = RunningStatistics()
        self._closed = False
        if self.folder.exists():
            raise FileExistsError(
                f"{self.folder} exists, and data are never overwritten: choose another folder or "
                "remove it."
            )
        self._stage = self.folder.parent / f".{self.folder.name}.partial-{uuid.uuid4().hex[:8]}"
        try:
            self._stage.mkdir(parents=True)
        except OSError as error:
            raise OSError(
                f"Cannot write CALVIN data to {self.folder}: {error.strerror}. Choose a folder "
                "that you may write to."
            ) from error

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
                four pictures all frames of the split have, and how large they are.
            rgb_gripper: uint8 [3, H, W], the wrist camera.
            depth_static: float32 [H, W], in metres.
            depth_gripper: float32 [H, W], in metres.

        Returns:
            The frame's number.

        Raises:
            DemonstrationError: with every violation; the frame is not written.
            ValueError: with one action and not the other, or a picture of another layout.
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
        problems = vector_problems(frame) + camera_problems(frame)
        if self._cameras is not None and not problems and cameras != self._cameras:
            problems = [
                f"pictures {cameras}, the frames before have {self._cameras}: all frames of a "
                "split have the same cameras and sizes"
            ]
        if problems:
            raise DemonstrationError(f"Frame {self._next} for {self.folder}", problems)
        file = self._stage / frame_name(self._next)
        with file.open("wb") as opened:
            np.savez_compressed(opened, **frame)  # type: ignore[arg-type]
        self._cameras = cameras
        self._statistics.add(frame)
        number, self._next = self._next, self._next + 1
        return number

    def annotate(self, start: int, end: int, task: str, sentence: str) -> None:
        """Say what happens in some frames of one episode, the open one or one before.

        Args:
            start: the number of the first frame, as :meth:`add_frame` returned it.
            end: one past the number of the last frame, which should show the task done. CALVIN's
                own spans have 33 to 64 frames, and its loader skips those of fewer than 16.
            task: CALVIN's name of the task.
            sentence: the instruction.

        Raises:
            DemonstrationError: with every violation; nothing is noted.
            RuntimeError: after :meth:`close`.
        """
        self._check_open("nothing can be annotated")
        episodes = [*self.episodes, (self._start, self._next - 1)]
        span = CalvinSpan(len(self.spans), start, end, task, sentence)
        problems = span_problems(span, np.array(episodes))
        if problems:
            raise DemonstrationError(f"Annotation for {self.folder}", problems)
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
            FileExistsError: where the folder appeared meanwhile; the hidden folder stays.
        """
        if self._closed:
            return
        self.end_episode()
        if not self.episodes:
            self._discard()
            raise ValueError(f"No frame was added for {self.folder}: there is nothing to write.")
        (self._stage / frame_name(self._next)).unlink(missing_ok=True)
        self._describe()
        if not complete:
            (self._stage / INTERRUPTED_FILE).write_text(
                "The recording of this split stopped early. Remove this file to use what there "
                "is as if it were whole.\n"
            )
        if self.folder.exists():
            raise FileExistsError(
                f"{self.folder} was made by another process meanwhile; the data are in "
                f"{self._stage}."
            )
        os.replace(self._stage, self.folder)
        self._closed = True

    def __enter__(self) -> CalvinWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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

    def _describe(self) -> None:
        """Write every file of the split but the frames."""
        for file in (ANNOTATIONS_FILE, CONFIG_FILE):
            (self._stage / file).parent.mkdir(exist_ok=True)
        episodes = np.array(self.episodes, dtype=np.int64)
        np.save(self._stage / EPISODES_FILE, episodes)
        np.save(self._stage / LENGTHS_FILE, episodes[:, 1] - episodes[:, 0] + 1)
        np.save(self._stage / SCENES_FILE, _object(self.scenes))
        embeddings = np.zeros((len(self.spans), 1, EMBEDDING_DIM), dtype=np.float32)
        for index, span in enumerate(self.spans):
            embeddings[index, 0] = hashed_embedding(span.sentence)
        annotations = {
            "language": {
                "ann": [span.sentence for span in self.spans],
                "task": [span.task for span in self.spans],
                "emb": embeddings,
            },
            "info": {"episodes": [], "indx": [(span.start, span.stop) for span in self.spans]},
        }
        np.save(self._stage / ANNOTATIONS_FILE, _object(annotations))
        (self._stage / STATISTICS_FILE).write_text(self._statistics.to_yaml())
        config = self._config if self._config is not None else self._default_config()
        (self._stage / CONFIG_FILE).write_text(yaml.safe_dump(dict(config), sort_keys=False))

    def _default_config(self) -> dict[str, Any]:
        names = {STATIC: "static", GRIPPER: "gripper"}
        cameras = {
            names[key]: {"name": names[key], "height": shape[0], "width": shape[1]}
            for key, shape in (self._cameras or {}).items()
            if key in names
        }
        return {"scene": {"name": self._scene}, "cameras": cameras}

    def _check_open(self, consequence: str) -> None:
        if self._closed:
            raise RuntimeError(f"The writer of {self.folder} is closed: {consequence}.")

    def _discard(self) -> None:
        self._closed = True
        shutil.rmtree(self._stage, ignore_errors=True)


def _channels_last(key: str, picture: np.ndarray | None) -> np.ndarray | None:
    if picture is None:
        return None
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise ValueError(f"{key} has shape {picture.shape}, expected [3, height, width].")
    return np.moveaxis(picture, 0, -1)


def _object(content: Any) -> np.ndarray:
    array = np.empty((), dtype=object)
    array[()] = content
    return array
