"""``demonstrations.json``: written, read and checked."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import StrictBool, StrictInt, StrictStr, TypeAdapter, ValidationError

from rftf_torchrl.data.format import (
    FORMAT_VERSION,
    INDEX_FILE,
    Episode,
    Task,
    index_file,
    task_problems,
)
from rftf_torchrl.files import write_json
from rftf_torchrl.settings import validation_problems


@dataclass(frozen=True)
class Index:
    """What ``demonstrations.json`` holds; the fields are those of ``rftf_torchrl.data``.

    Args:
        complete: False where the collection was interrupted.
        simulator: the name of the simulator.
        image_size: height and width, None where the frames have no image.
        state_dim: size of the state, None where there is none.
        action_dim: size of the action, None where there is none.
        action_repeat: simulator steps per recorded action.
        num_frames: the number of frames in the folder.
        tasks: the tasks.
        episodes: the episodes.
        wrist_image_size: height and width of the wrist image, None where there is none.
        simulator_steps: steps that the recording used, those of failed episodes included.

    Example:
        >>> Index(True, "metaworld", (64, 64), 39, 4, 1, 0, (), ()).action_dim
        4
    """

    complete: StrictBool
    simulator: StrictStr
    image_size: tuple[StrictInt, StrictInt] | None
    state_dim: StrictInt | None
    action_dim: StrictInt | None
    action_repeat: StrictInt
    num_frames: StrictInt
    tasks: tuple[Task, ...]
    episodes: tuple[Episode, ...]
    wrist_image_size: tuple[StrictInt, StrictInt] | None = None
    simulator_steps: StrictInt = 0


def write_index(root: Path, index: Index) -> None:
    """Write ``demonstrations.json`` below ``root``.

    Args:
        root: an existing folder.
        index: what to write.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> write_index(root, Index(True, "metaworld", (64, 64), 39, 4, 1, 0, (), ()))
        >>> json.loads(index_file(root).read_text(encoding="utf-8"))["format_version"]
        1
    """
    content = {"format_version": FORMAT_VERSION, **asdict(index)}
    if index.wrist_image_size is None:
        del content["wrist_image_size"]
    for episode in content["episodes"]:
        for name, plain in (("source", None), ("takeover", 0)):
            if episode[name] == plain:
                del episode[name]
    write_json(index_file(root), content)


def read_index(root: Path) -> tuple[Index | None, list[str]]:
    """Read ``demonstrations.json`` and list what is wrong with it.

    Args:
        root: the folder.

    Returns:
        The index, None where it cannot be made sense of, and one sentence per violation.

    Raises:
        FileNotFoundError: where there is none.

    Example:
        >>> read_index(Path("no-such-folder"))
        Traceback (most recent call last):
            ...
        FileNotFoundError: No demonstrations in no-such-folder: demonstrations.json is missing.
    """
    file = index_file(root)
    if not file.is_file():
        raise FileNotFoundError(f"No demonstrations in {root}: {INDEX_FILE} is missing.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        return None, [f"{INDEX_FILE}: unreadable JSON ({error})"]
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        return None, [
            f"{INDEX_FILE}: format_version is {version!r}, this library reads {FORMAT_VERSION}"
        ]
    try:
        index = TypeAdapter(Index).validate_python(content)
    except ValidationError as error:
        return None, validation_problems(error, f"{INDEX_FILE}: ")
    problems = task_problems(index.tasks) + episode_problems(index)
    return index, [f"{INDEX_FILE}: {line}" for line in problems]


def episode_problems(index: Index) -> list[str]:
    """List the episodes whose task is unknown, or whose frames are too few, outside or shared.

    Args:
        index: the index.

    Returns:
        One sentence per violation, none if the episodes are sound.

    Example:
        >>> episode = Episode(index=0, task_id=0, start=0, stop=1, success=True)
        >>> task = Task(id=0, name="reach-v3", instruction="reach the red dot")
        >>> episode_problems(Index(True, "metaworld", (64, 64), 39, 4, 1, 9, (task,), (episode,)))
        ['episode 0: frames 0 to 1 are fewer than 2 frames']
    """
    if not index.episodes:
        return ["the list of episodes is empty"]
    problems = []
    tasks = sorted(task.id for task in index.tasks)
    seen: set[int] = set()
    for episode in index.episodes:
        where = f"episode {episode.index}"
        if episode.index in seen:
            problems.append(f"{where}: the index is used twice")
        seen.add(episode.index)
        if episode.task_id not in tasks:
            problems.append(f"{where}: unknown task_id {episode.task_id}, the tasks are {tasks}")
        span = f"frames {episode.start} to {episode.stop}"
        if not 0 <= episode.start <= episode.stop <= index.num_frames:
            problems.append(f"{where}: {span} are outside of 0 to {index.num_frames}")
        elif len(episode) < 2:
            problems.append(f"{where}: {span} are fewer than 2 frames")
    before, *rest = sorted(index.episodes, key=lambda episode: (episode.start, episode.stop))
    for after in rest:
        if after.start < before.stop:
            problems.append(
                f"episode {after.index}: starts at frame {after.start}, but episode "
                f"{before.index} ends at {before.stop}: they overlap"
            )
        before = max(before, after, key=lambda episode: episode.stop)
    return problems
