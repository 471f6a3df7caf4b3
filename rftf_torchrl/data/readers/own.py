"""The reader of this library's own demonstrations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tensordict import NestedKey
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.data.demonstrations import Demonstrations, load_demonstrations
from rftf_torchrl.data.format import Episode, index_file
from rftf_torchrl.data.readers.episode import BadEpisode, VideoEpisode
from rftf_torchrl.data.readers.pictures import file_version, resized


def read_demonstrations(
    path: str, *, size: int | None, fps: float | None, wrist: bool = False
) -> Iterator[VideoEpisode | BadEpisode]:
    """Read a folder of demonstrations; they have no frames per second, so all frames are kept.

    Args:
        path: the folder.
        size: edge of the images in pixels; None as they are.
        fps: passed over.
        wrist: the images of the gripper camera.

    Yields:
        Its episodes.

    Raises:
        FileNotFoundError: where there are none.
        DemonstrationError: with every violation of the format.
        ValueError: where they have no images.
    """
    demonstrations = load_demonstrations(Path(path))
    key = keys.WRIST_IMAGE if wrist else keys.IMAGE
    if key not in demonstrations.frames.keys(include_nested=True):
        raise ValueError(
            f"the demonstrations in {path} have no {'.'.join(key)}: a value model of images learns "
            "from demonstrations that were recorded with images (env.image_size)"
        )
    tasks = {task.id: task for task in demonstrations.tasks}
    divided = any(episode.split == "test" for episode in demonstrations.episodes)
    for episode in demonstrations.episodes:
        task = tasks[episode.task_id]
        yield VideoEpisode(
            f"episode {episode.index}",
            task.instruction,
            partial(_frames, demonstrations, episode, key, size),
            success=episode.success,
            task=task.name,
            split=episode.split if divided else None,
            index=episode.index,
            version=file_version(index_file(Path(path))),
        )


def _frames(
    demonstrations: Demonstrations, episode: Episode, key: NestedKey, size: int | None
) -> Tensor:
    return resized(demonstrations.frames[key][episode.start : episode.stop].clone(), size)
