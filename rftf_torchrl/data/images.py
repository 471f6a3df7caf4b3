"""The optional entries, the images: a folder has each of them in every episode or in none."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tensordict import NestedKey, TensorDictBase

from rftf_torchrl import keys as k
from rftf_torchrl.data.format import Entry

IMAGE_SIZES: dict[NestedKey, tuple[str, tuple[str, str]]] = {
    k.IMAGE: ("image_size", ("h", "w")),
    k.WRIST_IMAGE: ("wrist_image_size", ("wrist_h", "wrist_w")),
}
"""Each image's field in the index, and the letters of its height and width in the entries."""


def images_of(frames: TensorDictBase) -> tuple[NestedKey, ...]:
    """The images that frames have; none for state-only ones.

    Args:
        frames: tensordict [T].

    Returns:
        The keys of the images, in the format's order.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> images_of(TensorDict({("observation", "image"): torch.zeros(5, 3, 8, 8)}, [5]))
        (('observation', 'image'),)
    """
    return tuple(key for key in IMAGE_SIZES if frames.get(key, None) is not None)


def expected_entries(entries: Iterable[Entry], images: Collection[NestedKey]) -> tuple[Entry, ...]:
    """Leave the images that are not there out of the format's entries.

    Args:
        entries: key, dtype and trailing shape of each entry.
        images: the keys of the images that the frames have.

    Returns:
        The entries to expect, in their order.

    Example:
        >>> from rftf_torchrl.data.format import RECORDED_ENTRIES
        >>> [entry[0] for entry in expected_entries(RECORDED_ENTRIES, [])][:2]
        [('observation', 'state'), ('instruction', 'tokens')]
    """
    return tuple(entry for entry in entries if entry[0] in images or entry[0] not in IMAGE_SIZES)


def default_keys(frames: TensorDictBase, keys: Iterable[NestedKey]) -> tuple[NestedKey, ...]:
    """Leave what is not there out of the keys that are read by default.

    Args:
        frames: tensordict [N] to read from.
        keys: the keys to read of frames that have everything.

    Returns:
        The keys to read of these frames, in their order.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> frames = TensorDict({("observation", "state"): torch.zeros(5, 39)}, [5])
        >>> default_keys(frames, [("observation", "image"), ("observation", "state")])
        (('observation', 'state'),)
    """
    return tuple(key for key in keys if frames.get(key, None) is not None)
