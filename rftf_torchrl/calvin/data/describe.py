"""The files of a split that say what its frames are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
import yaml

from rftf_torchrl.calvin.data.embedding import EMBEDDING_DIM, hashed_embedding
from rftf_torchrl.calvin.data.format import (
    ANNOTATIONS_FILE,
    CONFIG_FILE,
    EPISODES_FILE,
    GRIPPER,
    LENGTHS_FILE,
    SCENES_FILE,
    STATIC,
    STATISTICS_FILE,
)
from rftf_torchrl.calvin.data.spans import CalvinSpan
from rftf_torchrl.calvin.data.statistics import RunningStatistics
from rftf_torchrl.files import whole_file, write_text


def describe_split(
    folder: Path,
    *,
    episodes: Sequence[tuple[int, int]],
    scenes: Mapping[str, Sequence[int]],
    spans: Sequence[CalvinSpan],
    statistics: RunningStatistics,
    config: Mapping[str, Any],
) -> None:
    """Write every file of a split but its frames.

    Args:
        folder: the folder of the split.
        episodes: first and last frame of each.
        scenes: first and last frame of each, by CALVIN's name of the scene.
        spans: the annotations.
        statistics: of the frames.
        config: contents of ``.hydra/merged_config.yaml``.

    Example:
        >>> import tempfile
        >>> folder, statistics = Path(tempfile.mkdtemp()), RunningStatistics()
        >>> statistics.add(
        ...     {"robot_obs": np.zeros(15), "scene_obs": np.zeros(24), "actions": np.zeros(7)}
        ... )
        >>> describe_split(
        ...     folder,
        ...     episodes=[(64, 64)],
        ...     scenes={"calvin_scene_D": [64, 64]},
        ...     spans=[],
        ...     statistics=statistics,
        ...     config={},
        ... )
        >>> np.load(folder / "ep_lens.npy").tolist()
        [1]
    """
    for file in (ANNOTATIONS_FILE, CONFIG_FILE):
        (folder / file).parent.mkdir(exist_ok=True)
    bounds = np.array(episodes, dtype=np.int64)
    embeddings = np.zeros((len(spans), 1, EMBEDDING_DIM), dtype=np.float32)
    for index, span in enumerate(spans):
        embeddings[index, 0] = hashed_embedding(span.sentence)
    annotations: dict[str, Any] = {
        "language": {  # equal texts as one object, so that equal annotations are equal bytes
            "ann": [intern(span.sentence) for span in spans],
            "task": [intern(span.task) for span in spans],
            "emb": embeddings,
        },
        "info": {"episodes": [], "indx": [(span.start, span.stop) for span in spans]},
    }
    if any(span.takeover for span in spans):  # CALVIN's own loader passes it over
        annotations["language"]["takeover"] = [span.takeover for span in spans]
    arrays = {  # in this order: a killed recording goes on from an old part and a new part too
        SCENES_FILE: _object({name: list(frames) for name, frames in scenes.items()}),
        EPISODES_FILE: bounds,
        LENGTHS_FILE: bounds[:, 1] - bounds[:, 0] + 1,
        ANNOTATIONS_FILE: _object(annotations),
    }
    for name, array in arrays.items():
        with whole_file(folder / name) as hidden:
            np.save(hidden, array)
    write_text(folder / STATISTICS_FILE, statistics.to_yaml())
    write_text(folder / CONFIG_FILE, yaml.safe_dump(dict(config), sort_keys=False))


def default_config(scene: str, cameras: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What is known of the simulator: the scene's name and the sizes of the cameras.

    Args:
        scene: CALVIN's name of the scene.
        cameras: shape [h, w, ...] of the images by their key in a frame.

    Returns:
        The configuration.

    Example:
        >>> default_config("calvin_scene_D", {"rgb_static": (200, 200, 3)})["cameras"]
        {'static': {'name': 'static', 'height': 200, 'width': 200}}
    """
    names = {STATIC: "static", GRIPPER: "gripper"}
    sizes = {
        names[key]: {"name": names[key], "height": shape[0], "width": shape[1]}
        for key, shape in cameras.items()
        if key in names
    }
    return {"scene": {"name": scene}, "cameras": sizes}


def _object(content: Any) -> np.ndarray:
    array = np.empty((), dtype=object)
    array[()] = content
    return array
