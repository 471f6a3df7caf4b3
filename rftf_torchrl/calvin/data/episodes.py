"""CALVIN's data through the door of the readers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.calvin.data.convert import SPLIT_NAMES
from rftf_torchrl.calvin.data.format import SPLITS, frame_name, split_folder
from rftf_torchrl.calvin.data.reader import CalvinDataset
from rftf_torchrl.calvin.data.spans import CalvinSpan
from rftf_torchrl.data.readers.episode import BadEpisode, VideoEpisode
from rftf_torchrl.data.readers.pictures import at_rate, file_version

RATE = 30


def read_calvin(
    path: str, *, size: int | None, fps: float | None
) -> Iterator[VideoEpisode | BadEpisode]:
    """Read the annotated spans of data in CALVIN's format, the static camera, 30 frames per second.

    Args:
        path: the folder with ``training``, ``validation`` or both.
        size: edge of the square images in pixels; None for 200, as they are recorded.
        fps: frames per second to keep; None for all.

    Yields:
        A successful episode for each span; ``validation`` is the split ``"test"``.

    Raises:
        DemonstrationError: where the files that list episodes and spans are not sound.
    """
    index = 0
    for split in SPLITS:
        if not split_folder(path, split).is_dir():
            continue
        dataset = CalvinDataset(path, split, image_size=size or 200, scene="D")  # read by no image
        for span in dataset.spans:
            files = (dataset.folder / frame_name(n) for n in range(span.start, span.stop))
            yield VideoEpisode(
                f"{split}: annotation {span.index}",
                span.sentence,
                partial(_frames, dataset, span, fps),
                success=True,
                task=span.task,
                split=SPLIT_NAMES[split],
                index=index,
                fps=RATE,
                version=file_version(*(file for file in files if file.is_file())),
            )
            index += 1


def _frames(dataset: CalvinDataset, span: CalvinSpan, fps: float | None) -> Tensor:
    frames: Tensor = dataset.read_frames(span.start, span.stop)[keys.IMAGE]
    kept = at_rate(((i / RATE, i) for i in range(len(frames))), fps)
    return frames[list(kept)]
