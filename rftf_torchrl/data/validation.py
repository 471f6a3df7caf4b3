"""Every frame of a folder of demonstrations, checked against its index."""

from __future__ import annotations

from tensordict import TensorDictBase

from rftf_torchrl import keys
from rftf_torchrl.data.checks import content_problems, entry_problems, label_problems
from rftf_torchrl.data.format import (
    ACTION,
    ACTION_IS_PAD,
    FRAMES_FOLDER,
    INDEX_FILE,
    STORED_ENTRIES,
)
from rftf_torchrl.data.images import IMAGE_SIZES, expected_entries, images_of
from rftf_torchrl.data.index import Index


def frame_problems(frames: TensorDictBase, index: Index) -> list[str]:
    """List what is wrong with frames: entries, dtypes, shapes, contents and labels.

    Args:
        frames: tensordict [N].
        index: the folder's index.

    Returns:
        One sentence per violation, with its episode and its key; none if the frames are sound.

    Example:
        >>> from tensordict import TensorDict
        >>> index = Index(True, "metaworld", (64, 64), 39, 4, 1, 9, (), ())
        >>> frame_problems(TensorDict({}, [8]), index)[0]
        'frames: 8 frames, demonstrations.json says 9'
    """
    images = {key: getattr(index, field) for key, (field, _) in IMAGE_SIZES.items()}
    entries = expected_entries(STORED_ENTRIES, [key for key, size in images.items() if size])
    absent = [keys.STATE] if index.state_dim is None else []
    if index.action_dim is None:
        absent += [ACTION, ACTION_IS_PAD]
    entries = tuple(entry for entry in entries if entry[0] not in absent)
    sizes = {
        letter: size
        for letter, size in (("S", index.state_dim), ("A", index.action_dim))
        if size is not None
    }
    for key, size in images.items():
        sizes.update(zip(IMAGE_SIZES[key][1], size or (), strict=False))
    problems = []
    if len(frames) != index.num_frames:
        problems.append(f"{len(frames)} frames, {INDEX_FILE} says {index.num_frames}")
    for key in images_of(frames):
        if images[key] is None:
            problems.append(
                f"key {key!r}: there, but {INDEX_FILE} says {IMAGE_SIZES[key][0]!r} null"
            )
    problems += entry_problems(frames, entries, sizes)
    sound = frames.select(
        *(entry[0] for entry in entries if not entry_problems(frames, [entry], sizes))
    )
    for episode in index.episodes:
        if not 0 <= episode.start < episode.stop <= len(frames):
            continue
        part = sound[episode.start : episode.stop]
        problems += [
            f"episode {episode.index}: {line}"
            for line in content_problems(part) + label_problems(part, episode)
        ]
    return [f"{FRAMES_FOLDER}: {line}" for line in problems]
