"""Where LeRobot's data sets keep what: ``meta``, and the templates of the other files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.files import climbs_out
from rftf_torchrl.optional import optional_module
from rftf_torchrl.settings import Positive, Text, validation_problems

VERSIONS = ("v2.0", "v2.1", "v3.0")
TEMPLATE = re.compile(
    r"(?:[^{}]|\{(?:chunk_index|file_index|episode_chunk|episode_index)(?::0?\d{1,2}d)?\}"
    r"|\{video_key\})+"
)


@dataclass(frozen=True)
class Info:
    """What is read of ``meta/info.json``.

    Args:
        codebase_version: the format's version.
        fps: frames per second.
        features: the columns, with ``dtype`` and ``shape``.
        data_path: template of the tables' paths.
        video_path: template of the videos' paths.
        chunks_size: episodes in a folder, v2.
    """

    codebase_version: Text
    fps: Positive
    features: dict[str, dict[str, Any]]
    data_path: Text
    video_path: str | None = None
    chunks_size: Annotated[int, Field(ge=1)] = 1000


@dataclass(frozen=True)
class Layout:
    """A data set as its ``meta`` folder describes it.

    Attributes:
        root: the folder.
        info: ``meta/info.json``.
        camera: the key of the images.
        success: the column of the outcome, or None.
        tasks: instructions by ``task_index``.
        episodes: a row for each episode.
    """

    root: Path
    info: Info
    camera: str
    success: str | None
    tasks: dict[int, str]
    episodes: list[dict[str, Any]]

    @property
    def fps(self) -> float:
        """Frames a second."""
        return float(self.info.fps)

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """The columns of the frames."""
        return self.info.features

    @property
    def film(self) -> bool:
        """Whether the camera's images are videos; else they lie in the tables."""
        return bool(self.features[self.camera]["dtype"] == "video")

    def file(self, what: str, row: dict[str, Any]) -> Path:
        """The table (``"data"``) or the video (``"video"``) that an episode lies in.

        Raises:
            ValueError: where the episode's row does not say.
        """
        number = row["episode_index"]
        prefix = "data" if what == "data" else f"videos/{self.camera}"
        template = self.info.data_path if what == "data" else self.info.video_path
        places = {
            "video_key": self.camera,
            "episode_index": number,
            "episode_chunk": number // self.info.chunks_size,
            **{
                name: row.get(f"{prefix}/{name}")
                for name in ("chunk_index", "file_index")
                if row.get(f"{prefix}/{name}") is not None
            },
        }
        try:
            name = str(template).format(**places)
        except KeyError as error:
            raise ValueError(f"meta/episodes has no {prefix}/{error.args[0]} for it") from error
        if climbs_out(name):
            raise ValueError(f"meta/episodes says that it lies in {name!r}, outside the data set")
        return self.root / name


def dataset_folder(path: str, camera: str | None = None) -> Path:
    """The folder of a data set; one of the hub is downloaded, at first its tables alone.

    Args:
        path: a folder, or an id of the hub.
        camera: whose videos to download.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: where there is neither.
    """
    root = Path(path)
    if (root / "meta" / "info.json").is_file():
        return root
    if root.exists():
        raise FileNotFoundError(f"{path} is no LeRobot data set: meta/info.json is missing")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        raise FileNotFoundError(f"there is no folder {path}, and it is no id of the hub either")
    hub = optional_module("huggingface_hub", "video", "a data set of the hub")
    patterns = ["meta/*", "data/*", *([f"videos/*{camera}*"] if camera else [])]
    try:
        found = hub.snapshot_download(path, repo_type="dataset", allow_patterns=patterns)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"there is no folder {path}, and the hub did not give such a data set: {error}"
        ) from error
    return Path(found)


def read_layout(root: Path, camera: str | None, success: str | None) -> Layout:
    """Read and check ``meta``.

    Raises:
        DemonstrationError: with everything that is wrong with it.
    """
    info = _info(root)
    what = f"LeRobot data set {root}"
    cameras = [key for key, each in info.features.items() if each.get("dtype") in _PICTURES]
    if camera is not None:
        named = [key for key in cameras if camera in (key, key.rpartition(".")[2])]
    else:
        named = cameras
    problems = []
    if len(named) != 1:
        given = "there are several cameras" if camera is None else f"no camera is {camera!r}"
        given = given if cameras else "it has no images"
        problems.append(
            f"{given}: choose among {', '.join(cameras) or 'none'} (data.options.camera)"
        )
    if success is None and "next.success" in info.features:
        success = "next.success"
    tasks, wrong = _tasks(root)
    problems += wrong
    episodes, wrong = _episodes(root)
    problems += wrong
    if (
        success is not None
        and success not in info.features
        and not any(success in row for row in episodes)
    ):
        problems.append(
            f"there is no column {success!r} of frames or episodes (data.options.success)"
        )
    if problems:
        raise DemonstrationError(what, problems)
    return Layout(root, info, named[0], success, tasks, episodes)


_PICTURES = ("video", "image")


def _info(root: Path) -> Info:
    file = root / "meta" / "info.json"
    what = f"LeRobot data set {root}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        info = TypeAdapter(Info).validate_python(content)
    except ValidationError as error:
        raise DemonstrationError(what, validation_problems(error, "meta/info.json: ")) from error
    except ValueError as error:
        raise DemonstrationError(what, [f"meta/info.json: unreadable JSON ({error})"]) from error
    problems = []
    if info.codebase_version not in VERSIONS:
        problems.append(
            f"meta/info.json: codebase_version is {info.codebase_version!r}, this library reads "
            f"{', '.join(VERSIONS)}"
        )
    for name in ("data_path", "video_path"):
        template = getattr(info, name)
        if template is not None and (not TEMPLATE.fullmatch(template) or climbs_out(template)):
            problems.append(
                f"meta/info.json: {name} is {template!r}, expected a path in the folder with "
                "{chunk_index}, {file_index}, {video_key} or v2's {episode_chunk}, {episode_index}"
            )
    problems += [
        f"meta/info.json: the feature {key!r} leaves the folder"
        for key in info.features
        if climbs_out(key)
    ]
    if problems:
        raise DemonstrationError(what, problems)
    return info


def _tasks(root: Path) -> tuple[dict[int, str], list[str]]:
    try:
        rows = _rows(root, "tasks")
    except (ValueError, OSError) as error:
        return {}, [f"meta/tasks: {error}"]
    found, problems = {}, []
    for row in rows:
        sentence = row.get("task", row.get("__index_level_0__"))
        if not isinstance(sentence, str) or not isinstance(row.get("task_index"), int):
            problems.append(f"meta/tasks: expected task_index and task, got {row}")
        elif row["task_index"] in found:
            problems.append(f"meta/tasks: task_index {row['task_index']} is there twice")
        else:
            found[row["task_index"]] = sentence
    return found, problems


def _episodes(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    try:
        rows = _rows(root, "episodes")
    except (ValueError, OSError) as error:
        return [], [f"meta/episodes: {error}"]
    problems = []
    seen: set[int] = set()
    for row in rows:
        number = row.get("episode_index")
        if not isinstance(number, int) or not isinstance(row.get("length"), int) or number < 0:
            problems.append("meta/episodes: a row lacks episode_index or length")
        elif number in seen:
            problems.append(f"meta/episodes: episode {number} is there twice")
        else:
            seen.add(number)
    return rows, problems


def _rows(root: Path, name: str) -> list[dict[str, Any]]:
    """The rows of ``meta/tasks`` or ``meta/episodes``: Parquet in v3, JSON lines in v2."""
    meta = root / "meta"
    if (meta / f"{name}.jsonl").is_file():
        lines = (meta / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
        read = [json.loads(line) for line in lines if line.strip()]
        other = [row for row in read if not isinstance(row, dict)]
        if other:
            raise ValueError(f"expected an object in braces in each line, got {other[0]!r}")
        return read
    parquet = optional_module("pyarrow.parquet", "video", "reading LeRobot data sets")
    one = meta / f"{name}.parquet"
    files = [one] if one.is_file() else sorted((meta / name).rglob("*.parquet"))
    if not files:
        raise FileNotFoundError("missing")
    rows: list[dict[str, Any]] = []
    for file in files:
        columns = [each for each in parquet.read_schema(file).names if each[:6] != "stats/"]
        rows += parquet.read_table(file, columns=columns).to_pylist()
    return rows
