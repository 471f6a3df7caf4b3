"""One frame's file, read and checked."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from rftf_torchrl.calvin.data.checks import frame_problems
from rftf_torchrl.calvin.data.format import EPISODES_FILE, VECTORS
from rftf_torchrl.calvin.data.unpickle import CORRUPT
from rftf_torchrl.data.format import DemonstrationError

UNREADABLE = (*CORRUPT, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_frame(file: Path, *cameras: str) -> dict[str, np.ndarray]:
    """Read the vectors of a frame, and the images that are asked for.

    Args:
        file: the frame's ``.npz``.
        cameras: the keys of the images.

    Returns:
        The entries, checked.

    Raises:
        DemonstrationError: with every violation: a missing, corrupt or truncated file, missing
            entries, wrong shapes and dtypes, numbers that are not finite, actions out of range.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "episode_0000064.npz")
        >>> frame = {key: np.zeros(size) for key, size in VECTORS.items()}
        >>> frame["actions"][6] = frame["rel_actions"][6] = -1
        >>> np.savez(file, **frame)
        >>> read_frame(file)["rel_actions"].tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    """
    try:
        with np.load(file, allow_pickle=False) as opened:
            frame = {key: opened[key] for key in (*VECTORS, *cameras) if key in opened}
    except FileNotFoundError:
        problems = [f"missing, but {EPISODES_FILE} counts it"]
    except UNREADABLE as error:
        problems = [f"corrupt or truncated ({error}): copy or download it again"]
    else:
        problems = frame_problems(frame, *cameras)
    if problems:
        raise DemonstrationError(
            f"CALVIN data in {file.parent}", [f"{file.name}: {line}" for line in problems]
        )
    return frame
