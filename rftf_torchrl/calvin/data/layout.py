"""Which frames a split has: its episodes, and the scene of each."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rftf_torchrl.calvin.data.format import EPISODES_FILE, SCENES_FILE, scene_name
from rftf_torchrl.calvin.data.unpickle import safe_load_npy
from rftf_torchrl.calvin.settings import SCENES, Scene
from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.digests import digest_problems


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
    wrong = partial(_error, folder, EPISODES_FILE)
    episodes = read_object(folder, EPISODES_FILE)
    if not isinstance(episodes, np.ndarray) or episodes.dtype.kind not in "iu":
        raise wrong("expected an array of integers")
    if episodes.ndim != 2 or episodes.shape[1] != 2 or not len(episodes):
        raise wrong(f"shape {episodes.shape}, expected (episodes, 2)")
    episodes = episodes.astype(np.int64)
    for index, (first, last) in enumerate(episodes):
        if not 0 <= first <= last:
            raise wrong(f"episode {index}: first frame {first}, last frame {last}")
    for before, after in pairwise(np.argsort(episodes[:, 0])):
        shared = episodes[after, 0]
        if shared <= episodes[before, 1]:
            raise wrong(f"episodes {before} and {after} share frame {shared}")
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
    wrong = partial(_error, folder, SCENES_FILE)
    advice = "; give scene='A' to 'D' where the split has one scene"
    content = read_object(folder, SCENES_FILE, advice)
    if not isinstance(content, dict):
        raise wrong("expected a dictionary of scenes")
    letters: dict[str, Scene] = {scene_name(letter): letter for letter in SCENES}
    for name, bounds in content.items():
        if name not in letters:
            raise wrong(f"unknown scene {name!r}, expected one of {sorted(letters)}")
        if not is_pair(bounds):
            raise wrong(f"scene {name!r}: {bounds}, expected two frame numbers")
    found = []
    for index, (first, last) in enumerate(episodes):
        scenes = [n for n, (low, high) in content.items() if low <= first and last <= high]
        if not scenes:
            raise wrong(f"episode {index} (frames {first} to {last}) is in no scene")
        found.append(letters[scenes[0]])
    return tuple(found)


def is_pair(bounds: Any) -> bool:
    """Whether something is two frame numbers."""
    pair = np.asarray(bounds)
    return pair.shape == (2,) and pair.dtype.kind in "iu"


def read_object(folder: Path, name: str, advice: str = "") -> Any:
    """Read one of the files that describe a split, which must not differ from its digest."""
    if not (folder / name).is_file():
        raise _error(folder, name, f"missing{advice}")
    if damaged := digest_problems(folder, [name]):
        raise DemonstrationError(f"CALVIN data in {folder}", damaged)
    return safe_load_npy(folder / name)


def _error(folder: Path, name: str, problem: str) -> DemonstrationError:
    return DemonstrationError(f"CALVIN data in {folder}", [f"{name}: {problem}"])
