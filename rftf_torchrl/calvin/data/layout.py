"""Which frames a split has: its episodes, and the scene of each."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rftf_torchrl.calvin.data.format import EPISODES_FILE, SCENES_FILE, scene_name
from rftf_torchrl.calvin.data.unpickle import safe_load_npy
from rftf_torchrl.calvin.settings import SCENES, Scene
from rftf_torchrl.data.format import DemonstrationError


def read_episodes(folder: Path) -> np.ndarray:
    """Read which frames belong to which episode.

    Args:
        folder: the folder of the split.

    Returns:
        int64 [E, 2], the numbers of the first and the last frame of each episode.

    Raises:
        DemonstrationError: at a missing, corrupt or unsafe file, another shape or dtype, an episode
            that ends before it starts, and episodes that share frames.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "ep_start_end_ids.npy", np.array([[64, 90], [91, 91]]))
        >>> read_episodes(folder).tolist()
        [[64, 90], [91, 91]]
    """
    episodes = _read(folder, EPISODES_FILE)
    if not isinstance(episodes, np.ndarray) or episodes.dtype.kind not in "iu":
        raise _error(folder, EPISODES_FILE, "expected an array of integers")
    if episodes.ndim != 2 or episodes.shape[1] != 2 or not len(episodes):
        raise _error(folder, EPISODES_FILE, f"shape {episodes.shape}, expected (episodes, 2)")
    episodes = episodes.astype(np.int64)
    for index, (first, last) in enumerate(episodes):
        if not 0 <= first <= last:
            raise _error(
                folder, EPISODES_FILE, f"episode {index}: first frame {first}, last frame {last}"
            )
    order = np.argsort(episodes[:, 0])
    for before, after in pairwise(order):
        if episodes[after, 0] <= episodes[before, 1]:
            raise _error(
                folder,
                EPISODES_FILE,
                f"episodes {before} and {after} share frame {episodes[after, 0]}",
            )
    return episodes


def read_scenes(folder: Path, episodes: np.ndarray, scene: Scene | None) -> tuple[Scene, ...]:
    """Find the scene of every episode.

    Args:
        folder: the folder of the split.
        episodes: int64 [E, 2], from :func:`read_episodes`.
        scene: the scene of all episodes, for a split without ``scene_info.npy``.

    Returns:
        ``"A"`` to ``"D"`` for each episode.

    Raises:
        ValueError: where ``scene`` is not a scene.
        DemonstrationError: at a missing, corrupt or unsafe file, an unknown scene, and an episode
            that no scene has.

    Example:
        >>> read_scenes(Path("no-such-folder"), np.array([[64, 90]]), "D")
        ('D',)
    """
    if scene is not None:
        scene_name(scene)
        return (scene,) * len(episodes)
    content = _read(folder, SCENES_FILE, "; give scene='A' to 'D' where the split has one scene")
    if not isinstance(content, dict):
        raise _error(folder, SCENES_FILE, "expected a dictionary of scenes")
    letters: dict[str, Scene] = {scene_name(letter): letter for letter in SCENES}
    ranges: dict[Scene, tuple[int, int]] = {}
    for name, bounds in content.items():
        pair = np.asarray(bounds)
        if name not in letters:
            raise _error(
                folder, SCENES_FILE, f"unknown scene {name!r}, expected one of {sorted(letters)}"
            )
        if pair.shape != (2,) or pair.dtype.kind not in "iu":
            raise _error(
                folder, SCENES_FILE, f"scene {name!r}: {bounds}, expected two frame numbers"
            )
        ranges[letters[name]] = (int(pair[0]), int(pair[1]))
    found = []
    for index, (first, last) in enumerate(episodes):
        scenes = [key for key, (low, high) in ranges.items() if low <= first and last <= high]
        if not scenes:
            raise _error(
                folder, SCENES_FILE, f"episode {index} (frames {first} to {last}) is in no scene"
            )
        found.append(scenes[0])
    return tuple(found)


def _read(folder: Path, name: str, advice: str = "") -> Any:
    try:
        return safe_load_npy(folder / name)
    except FileNotFoundError:
        raise _error(folder, name, f"missing{advice}") from None


def _error(folder: Path, name: str, problem: str) -> DemonstrationError:
    return DemonstrationError(f"CALVIN data in {folder}", [f"{name}: {problem}"])
