"""What the values of an episode say about it: looks failed, mislabelled, idle, cut off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from rftf_torchrl.settings import Count, Fraction, NotNegative, NotNegativeInt, Positive

FLAGS = {
    "failed": "the value of the last frame is low",
    "succeeded": "the episode is labelled a failure, and the value of its last frame is high",
    "mislabelled": "another instruction has a higher value at the last frame, by",
    "idle": "value and image do not change for long, as a share of the episode",
    "cut off": "the value still rises at the end, which is not high, by",
}
"""What each flag says of its number."""


@dataclass
class AnnotateConfig:
    """The values of a data set's episodes, and which episodes look wrong.

    Attributes:
        failed_below: an episode looks failed if its last frame has a value below this.
        done_above: a labelled failure looks like a success if its last frame has a value of this or
            more. An episode that reached it is not cut off.
        mislabelled_by: an episode looks mislabelled if another instruction's value at the last
            frame is higher by this.
        sentences: number of instructions of the data, the first ones, that each last frame is
            compared with.
        idle_share: an episode is idle if nothing changes for this share of it.
        idle_value: a change of the value below this counts as no change.
        idle_picture: a mean change of the image's pixels (0 to 255) below this counts as no change.
        end_share: the last part of an episode that counts as its end, as a share.
        cut_off_rise: an episode looks cut off if the value still rises by this much in its end.
        plots: number of episodes that are plotted, flagged ones first.
        videos: number of episodes of which a video is made, flagged ones first.
    """

    failed_below: NotNegative = 0.5
    done_above: NotNegative = 0.8
    mislabelled_by: Positive = 0.2
    sentences: Count = 20
    idle_share: Fraction = 0.3
    idle_value: Positive = 0.05
    idle_picture: Positive = 2.0
    end_share: Fraction = 0.2
    cut_off_rise: Positive = 0.1
    plots: NotNegativeInt = 160
    videos: NotNegativeInt = 8


@dataclass(frozen=True)
class EpisodeFlag:
    """Why an episode may be wrong.

    Attributes:
        name: ``"failed"``, ``"succeeded"``, ``"mislabelled"``, ``"idle"`` or ``"cut off"``.
        number: what was measured.
        threshold: the setting that it is beyond.
        detail: which instruction is higher, or which frames are idle; empty elsewhere.
    """

    name: str
    number: float
    threshold: float
    detail: str = ""


def flag_episode(
    values: Tensor,
    settings: AnnotateConfig,
    *,
    success: bool | None = None,
    others: Mapping[str, float] | None = None,
    idle: tuple[int, int] = (0, 1),
) -> list[EpisodeFlag]:
    """List what looks wrong with an episode.

    Args:
        values: of its frames under its own instruction, float [T].
        settings: the thresholds.
        success: its label; None where it has none.
        others: value of the last frame under other instructions.
        idle: first frame of the longest stretch without change, and the one after its last.

    Returns:
        The flags, none for an episode that looks right.

    Example:
        >>> import torch
        >>> flag_episode(torch.linspace(0, 1, 10), AnnotateConfig())
        []
        >>> flags = flag_episode(torch.linspace(0, 0.3, 10), AnnotateConfig())
        >>> [(flag.name, round(flag.number, 3), flag.threshold) for flag in flags]
        [('failed', 0.3, 0.5)]
    """
    end, flags = float(values[-1]), []
    if success is False:
        if end >= settings.done_above:
            flags.append(EpisodeFlag("succeeded", end, settings.done_above))
    elif end < settings.failed_below:
        flags.append(EpisodeFlag("failed", end, settings.failed_below))
    if others:
        sentence = max(others, key=lambda name: others[name])
        more = others[sentence] - end
        if more >= settings.mislabelled_by:
            flags.append(EpisodeFlag("mislabelled", more, settings.mislabelled_by, sentence))
    first, stop = idle
    share = (stop - first - 1) / max(len(values) - 1, 1)
    if share >= settings.idle_share:
        frames = f"frames {first} to {stop - 1}"
        flags.append(EpisodeFlag("idle", share, settings.idle_share, frames))
    rise = end - float(values[round((len(values) - 1) * (1 - settings.end_share))])
    if success is not False and rise >= settings.cut_off_rise and end < settings.done_above:
        flags.append(EpisodeFlag("cut off", rise, settings.cut_off_rise))
    return flags


def longest_idle(values: Tensor, frames: Tensor, settings: AnnotateConfig) -> tuple[int, int]:
    """The longest stretch whose values and images are about those of its first frame.

    Args:
        values: float [T].
        frames: uint8 [T, 3, h, w].
        settings: how small a change is none.

    Returns:
        The first frame and the one after the last.
    """

    def alike(first: int, now: int) -> bool:
        if abs(float(values[now] - values[first])) >= settings.idle_value:
            return False
        change = (frames[now].short() - frames[first].short()).abs().float().mean()
        return float(change) < settings.idle_picture

    longest, length = (0, 1), 1
    for first in range(len(frames)):
        if len(frames) - first <= length:
            break
        stop = first + 1
        while stop < len(frames) and alike(first, stop):
            stop += 1
        if stop - first > length:
            longest, length = (first, stop), stop - first
    return longest
