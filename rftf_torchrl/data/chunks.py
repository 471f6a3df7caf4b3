"""Action windows: for every frame the actions that follow it, for behaviour cloning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import NestedKey, TensorDict
from torch import Tensor
from torchrl.envs.transforms import ActionChunkTransform

from rftf_torchrl import keys as k
from rftf_torchrl.data.demonstrations import Demonstrations
from rftf_torchrl.data.format import ACTION
from rftf_torchrl.data.images import default_keys
from rftf_torchrl.keys import nested_keys

INPUT_KEYS: tuple[NestedKey, ...] = (
    k.IMAGE,
    k.WRIST_IMAGE,
    k.STATE,
    k.TOKENS,
    k.TOKEN_MASK,
    k.TASK_ID,
)


@dataclass(frozen=True, eq=False)
class ActionWindows:
    """Behaviour-cloning examples: targets in memory, observations read when asked for.

    Args:
        demonstrations: where the observations lie.
        frame: int64 [M], the frame of each example.
        targets: TensorDict [M] with ``("vla_action", "chunk")`` float32 [M, H, A] and
            ``"action_is_pad"`` bool [M, H].
        keys: the entries of a frame to read.

    Example:
        >>> import tempfile
        >>> from rftf_torchrl import load_demonstrations, write_synthetic_demonstrations
        >>> root = write_synthetic_demonstrations(tempfile.mkdtemp() + "/demos")
        >>> windows = action_windows(load_demonstrations(root), chunk_size=3)
        >>> batch = windows.batch(torch.tensor([0, 4]))
        >>> batch["observation", "image"].shape, batch["vla_action", "chunk"].shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 2]))
    """

    demonstrations: Demonstrations
    frame: Tensor
    targets: TensorDict
    keys: tuple[NestedKey, ...]

    def __len__(self) -> int:
        return len(self.frame)

    def batch(self, indices: Tensor) -> TensorDict:
        """Read some examples.

        Args:
            indices: int64 [B], positions among the M examples.

        Returns:
            TensorDict [B] with ``keys`` and the targets.
        """
        batch = self.demonstrations.frames.select(*self.keys)[self.frame[indices]]
        return batch.update(self.targets[indices])


@nested_keys
def action_windows(
    demonstrations: Demonstrations, *, chunk_size: int, keys: Sequence[NestedKey] | None = None
) -> ActionWindows:
    r"""Pair every frame, except an episode's last, with the ``H`` actions that follow it.

    :math:`\text{chunk}_t = (a_t, \dots, a_{t+H-1})`. Past the episode's last action the chunk
    repeats that action and ``"action_is_pad"`` is True
    (:class:`torchrl.envs.transforms.ActionChunkTransform` builds both).

    Args:
        demonstrations: where to read from.
        chunk_size: actions per chunk, H.
        keys: the entries of a frame that :meth:`ActionWindows.batch` reads. By default the
            observation, the instruction and the task, without the images where there are none.

    Returns:
        ``M = num_frames - number of episodes`` examples, in the order of the episodes.

    Raises:
        ValueError: at ``chunk_size`` below 1.
        KeyError: at a key that the demonstrations lack.

    Example:
        >>> import tempfile
        >>> from rftf_torchrl import load_demonstrations, write_synthetic_demonstrations
        >>> root = write_synthetic_demonstrations(tempfile.mkdtemp() + "/demos")
        >>> windows = action_windows(load_demonstrations(root), chunk_size=3)
        >>> windows.targets["action_is_pad"][3:6].tolist()
        [[False, False, True], [False, True, True], [False, False, False]]
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, expected 1 or more.")
    if keys is None:
        keys = default_keys(demonstrations.frames, INPUT_KEYS)
    demonstrations.check_keys(keys)
    spans = [torch.arange(start, stop - 1) for start, stop in demonstrations.spans.tolist()]
    frame = torch.cat(spans)
    done = torch.zeros(len(frame), 1, dtype=torch.bool)
    done[torch.tensor([len(span) for span in spans]).cumsum(0) - 1] = True
    windows = TensorDict(
        {ACTION: demonstrations.frames[ACTION][frame], ("next", "done"): done}, [len(frame)]
    )
    chunk = ActionChunkTransform(chunk_size, chunk_key=k.CHUNK, pad_key=k.CHUNK_IS_PAD)
    targets = chunk(windows).select(k.CHUNK, k.CHUNK_IS_PAD)
    return ActionWindows(demonstrations, frame, targets, tuple(keys))
