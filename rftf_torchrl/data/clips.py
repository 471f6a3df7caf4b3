"""Clips: a few frames of an episode in time order, for the temporal ranking loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NestedKey, TensorDict

from rftf_torchrl import keys as k
from rftf_torchrl.data.demonstrations import Demonstrations
from rftf_torchrl.data.format import ACTION, ACTION_IS_PAD, EPISODE
from rftf_torchrl.data.images import default_keys
from rftf_torchrl.keys import nested_keys

CLIP_KEYS: tuple[NestedKey, ...] = (k.IMAGE, k.STATE, k.TOKENS, k.TOKEN_MASK, k.TASK_ID, EPISODE)
FRAME_MASK = "frame_mask"
FRAME_INDEX = "frame_index"
FRAME_PROGRESS = "frame_progress"


@nested_keys
def sample_clips(
    demonstrations: Demonstrations,
    *,
    batch_size: int,
    frames: int,
    generator: torch.Generator,
    keys: Sequence[NestedKey] | None = None,
    shuffle_time: bool = False,
) -> TensorDict:
    r"""Draw clips of ``n`` frames at random, distinct, increasing times of an episode.

    The episode is uniform over the episodes and the times are uniform over the sets of ``n`` of its
    frames, so that the strides between frames vary:
    :math:`e \sim U(\text{episodes}),\ \{t_1 < \dots < t_n\} \sim U\binom{T_e}{n}`.
    An episode with fewer than ``n`` frames gives all of them, then repeats its last one with
    ``"frame_mask"`` False. A clip never holds an action: the value model learns from frames and
    instructions only (Shu, Lin, Wang, arXiv 2505.19767, value model).

    Args:
        demonstrations: where to draw from.
        batch_size: the number of clips, B.
        frames: frames per clip, ``n >= 2``.
        generator: the random generator, on the CPU.
        keys: the entries to read. By default the observation, the instruction, the task and the
            episode, without the image where there is none.
        shuffle_time: put the frames of each clip in random order. A model trained on such clips
            has nothing to learn: the negative control of an experiment.

    Returns:
        TensorDict [B, n] with ``keys`` and three more. ``"frame_mask"`` bool [B, n] is True at a
        real frame. ``"frame_index"`` int64 [B, n, 1] is the frame's time in its episode, from 0.
        ``"frame_progress"`` float32 [B, n, 1] is the share of the episode before the frame, from 0
        to 1; with ``shuffle_time`` it stays in order, as if the frames were.

    Raises:
        ValueError: at ``batch_size`` below 1, ``frames`` below 2, or a key that holds actions.
        KeyError: at a key that the demonstrations lack.

    Example:
        >>> import tempfile
        >>> from rftf_torchrl import load_demonstrations, write_synthetic_demonstrations
        >>> root = write_synthetic_demonstrations(tempfile.mkdtemp() + "/demos")
        >>> generator = torch.Generator().manual_seed(0)
        >>> clips = sample_clips(
        ...     load_demonstrations(root), batch_size=2, frames=4, generator=generator
        ... )
        >>> clips["observation", "image"].shape
        torch.Size([2, 4, 3, 8, 8])
        >>> bool((clips["frame_index"].diff(dim=1) > 0).all())
        True
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected 1 or more.")
    if frames < 2:
        raise ValueError(f"frames is {frames}, expected 2 or more: order needs two.")
    if keys is None:
        keys = default_keys(demonstrations.frames, CLIP_KEYS)
    for key in keys:
        if (key if isinstance(key, str) else key[0]) in (ACTION, ACTION_IS_PAD, k.CHUNK[0]):
            raise ValueError(
                f"Key {key!r} holds actions, and clips are frames and instructions only: leave it "
                "out."
            )
    demonstrations.check_keys(keys)
    spans = demonstrations.spans
    start, stop = spans[torch.randint(len(spans), (batch_size,), generator=generator)].unbind(-1)
    time, mask = _draw_times(stop - start, frames, generator)
    progress = time / (stop - start - 1).clamp_min(1)[:, None]
    if shuffle_time:
        order = torch.rand(time.shape, generator=generator).masked_fill(~mask, 2.0).argsort(1)
        time = time.gather(1, order)
    clips = demonstrations.frames.select(*keys)[start[:, None] + time]
    clips[FRAME_MASK] = mask
    clips[FRAME_INDEX] = time.unsqueeze(-1)
    clips[FRAME_PROGRESS] = progress.unsqueeze(-1)
    return clips


def _draw_times(
    lengths: torch.Tensor, frames: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted distinct times [B, n] below ``lengths`` [B], and which of them are real."""
    columns = max(int(lengths.max()), frames)
    within = torch.arange(columns) < lengths[:, None]
    draw = torch.rand(len(lengths), columns, generator=generator).masked_fill(~within, 2.0)
    time = draw.topk(frames, dim=1, largest=False).indices.sort(dim=1).values
    mask = torch.arange(frames) < lengths[:, None]
    return time.minimum(lengths[:, None] - 1), mask
