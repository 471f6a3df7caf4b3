"""The value of frames as they come, with a threshold that says "done"."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from tensordict.nn import TensorDictModuleBase
from torch import Tensor, tensor

from rftf_torchrl.evaluation.unknown_instructions import warn_of
from rftf_torchrl.evaluation.video_values import VideoValues
from rftf_torchrl.settings import Count, Finite, NotNegative, Positive, Text, check_value

_KEPT = 10_000


@dataclass
class WatchConfig:
    """The value of frames as they come from a camera or a video.

    Attributes:
        source: number of a camera, a URL, or a video file.
        instruction: the task's text.
        done_above: the task counts as done from this value on.
        undone_below: the task no longer counts as done below this value.
        hold: number of frames in a row that such a change needs.
        timeout: stop if a camera or a URL gives no frame for this many seconds.
    """

    source: Text | None = None
    instruction: Text | None = None
    done_above: NotNegative = 0.9
    undone_below: NotNegative = 0.7
    hold: Count = 3
    timeout: Positive = 10.0


class WatchedFrame(NamedTuple):
    """What :class:`ValueWatch` says of a frame.

    Attributes:
        value: V of the frame.
        done: whether the task counts as done.
        latency: seconds from the call to the value.
    """

    value: float
    done: bool
    latency: float


class ValueWatch:
    """The value of each frame of a camera, and whether the task is done, for a robot's own loop.

    "Done" has hysteresis: it begins after ``hold`` frames in a row with a value of ``done_above``
    or more, and ends after ``hold`` frames in a row below ``undone_below``.

    Args:
        model: a value model of images and instructions, on the device where it is to run.
        instruction: the task's text.
        done_above: value from which on the task counts as done.
        undone_below: value below which it no longer does; at most ``done_above``.
        hold: frames in a row that a change takes.
        image_size: edge of the square to which frames are resized, in pixels; by default that of
            the images that the model was trained on.
        max_words: longest instruction; by default as the model was trained.

    Raises:
        ValueError: where the model reads something that a video does not have, an argument is out
            of range, or the instruction has no word or too many.

    Example:
        >>> import torch
        >>> from rftf_torchrl import EncoderConfig, temporal_value_model
        >>> model = temporal_value_model(EncoderConfig(image_size=32))
        >>> watch = ValueWatch(model, "open the drawer")
        >>> for frame in torch.zeros(5, 3, 48, 64, dtype=torch.uint8):  # of your camera
        ...     value, done, latency = watch(frame)
        >>> watch.speed()["frames"]
        5
    """

    def __init__(
        self,
        model: TensorDictModuleBase,
        instruction: str,
        *,
        done_above: float = 0.9,
        undone_below: float = 0.7,
        hold: int = 3,
        image_size: int | None = None,
        max_words: int | None = None,
    ) -> None:
        check_value("done_above", done_above, Finite)
        check_value("undone_below", undone_below, Finite)
        check_value("hold", hold, Count)
        if undone_below > done_above:
            raise ValueError(
                f"undone_below={undone_below}: must be at most done_above={done_above}"
            )
        self._values = VideoValues(model, image_size=image_size, max_words=max_words)
        self._values.tokenizer(instruction)
        if not self._values.knows(instruction):
            warn_of([repr(instruction)])
        self.instruction = instruction
        self.done_above, self.undone_below, self.hold = done_above, undone_below, hold
        self._latencies: deque[float] = deque(maxlen=_KEPT)
        self._frames, self._begin, self._end = 0, 0.0, 0.0
        self.reset()

    def reset(self) -> None:
        """Begin a new episode: the task is not done. The measured speed goes on."""
        self.done, self._in_a_row = False, 0

    def __call__(self, frame: Tensor) -> WatchedFrame:
        """Look at the next frame.

        Args:
            frame: uint8 [3, h, w].

        Returns:
            The value, whether the task is done, and the latency.

        Raises:
            TypeError: if the frame is not uint8.
            ValueError: if it has another shape, or the value is not finite.
        """
        begin = time.perf_counter()
        value = float(self._values(frame[None], self.instruction))
        changes = value < self.undone_below if self.done else value >= self.done_above
        self._in_a_row = self._in_a_row + 1 if changes else 0
        if self._in_a_row == self.hold:
            self.done, self._in_a_row = not self.done, 0
        self._end = time.perf_counter()
        self._begin = self._begin if self._frames else begin
        self._frames += 1
        self._latencies.append(self._end - begin)
        return WatchedFrame(value, self.done, self._end - begin)

    def speed(self) -> dict[str, float]:
        """Frames so far, frames per second, and the latency's median and 95% quantile in seconds.

        The latencies are those of the last 10,000 frames.

        Raises:
            ValueError: before the first frame.
        """
        if not self._frames:
            raise ValueError("no frame has been watched yet")
        median, high = tensor(self._latencies).quantile(tensor([0.5, 0.95])).tolist()
        return {
            "frames": self._frames,
            "frames_per_second": self._frames / (self._end - self._begin),
            "median_latency": median,
            "latency_95": high,
        }
