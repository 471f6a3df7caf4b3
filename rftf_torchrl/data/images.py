"""The one optional entry, the image: a folder has it in every episode or in none."""

from __future__ import annotations

from collections.abc import Iterable

from tensordict import NestedKey, TensorDictBase

from rftf_torchrl import keys as k
from rftf_torchrl.data.format import Entry


def has_image(frames: TensorDictBase) -> bool:
    """Tell frames with ``("observation", "image")`` from state-only ones.

    Args:
        frames: tensordict [T].

    Returns:
        Whether the entry is there.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> has_image(TensorDict({("observation", "state"): torch.zeros(5, 39)}, [5]))
        False
    """
    return frames.get(k.IMAGE, None) is not None


def expected_entries(entries: Iterable[Entry], *, image: bool) -> tuple[Entry, ...]:
    """Leave the image out of the format's entries where there is none.

    Args:
        entries: key, dtype and trailing shape of each entry.
        image: whether the frames have images.

    Returns:
        The entries to expect, in their order.

    Example:
        >>> from rftf_torchrl.data.format import RECORDED_ENTRIES
        >>> [entry[0] for entry in expected_entries(RECORDED_ENTRIES, image=False)][:2]
        [('observation', 'state'), ('instruction', 'tokens')]
    """
    return tuple(entry for entry in entries if image or entry[0] != k.IMAGE)


def default_keys(frames: TensorDictBase, keys: Iterable[NestedKey]) -> tuple[NestedKey, ...]:
    """Leave the image out of the keys that are read by default where there is none.

    Args:
        frames: tensordict [N] to read from.
        keys: the keys to read of frames with images.

    Returns:
        The keys to read of these frames, in their order.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> frames = TensorDict({("observation", "state"): torch.zeros(5, 39)}, [5])
        >>> default_keys(frames, [("observation", "image"), ("observation", "state")])
        (('observation', 'state'),)
    """
    image = has_image(frames)
    return tuple(key for key in keys if image or key != k.IMAGE)
