"""Annotated spans of CALVIN's data turned into demonstrations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

from tensordict import TensorDict
from torch import Tensor

from rftf_torchrl.calvin.data.format import ANNOTATIONS_FILE, SCENE, SPLITS
from rftf_torchrl.calvin.data.reader import CalvinDataset
from rftf_torchrl.calvin.data.spans import CalvinSpan
from rftf_torchrl.calvin.scenes import benchmark_scene
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.calvin.tasks import TASKS, get_task
from rftf_torchrl.data.format import ACTION, DemonstrationError, Task
from rftf_torchrl.data.writer import DemonstrationWriter
from rftf_torchrl.training.progress import progress_bar

logger = logging.getLogger(__name__)

SPLIT_NAMES = dict(zip(SPLITS, ("train", "test"), strict=True))


def to_demonstrations(
    root: str | Path,
    out: str | Path,
    *,
    split: str | Sequence[str] = "training",
    image_size: int | None = None,
    wrist_size: int | None = None,
    tasks: Collection[str] | None = None,
    limit: int | None = None,
    scene: Scene | None = None,
    tokenizer: Callable[[list[str]], tuple[Tensor, Tensor]] | None = None,
    test_states: Literal["warn", "refuse"] = "warn",
    show_progress: bool | None = None,
) -> Path:
    """Turn the annotated spans of CALVIN's data into a folder of demonstrations.

    A span becomes one successful episode. Its action is CALVIN's relative action; its last frame
    is the observation after its last action, so that frame's own action, which belongs to what
    comes next, is left out. Each episode has the tokens of its own instruction; a task's
    ``instruction`` in the index is this library's. One span is in memory at a time.

    An interruption keeps the spans that were read, with ``complete: false``, as
    :class:`~rftf_torchrl.DemonstrationWriter` does; so do data whose own recording was
    interrupted. An existing ``out`` is refused.

    Args:
        root: the folder of the dataset.
        out: the folder to make.
        split: ``"training"`` or ``"validation"``, or both; the episodes are marked ``"train"`` or
            ``"test"``.
        image_size: height and width of the image, None for none.
        wrist_size: height and width of the wrist image, None for none. With neither of the two the
            state holds the scene as well.
        tasks: the names of the tasks to keep, all by default.
        limit: at most this many spans of each task and split, the first ones.
        scene: the scene, for a split without ``scene_info.npy``.
        tokenizer: n strings -> ``(tokens [n, L], mask [n, L])``;
            :class:`~rftf_torchrl.HashTokenizer` by default.
        test_states: what to do with spans of scene D that begin in an initial scene of the
            benchmark, see :func:`~rftf_torchrl.benchmark_scene`: ``"warn"`` keeps and
            counts them, as the published data are what they are, and ``"refuse"`` stops at the
            first.
        show_progress: False shows and logs nothing, see :func:`progress_bar`.

    Returns:
        ``out``.

    Raises:
        FileNotFoundError: where there is no such split.
        FileExistsError: where ``out`` exists.
        DemonstrationError: at data that cannot be used, with file, episode and key, and at a scene
            of the benchmark that is refused.
        ValueError: at an unknown split, task or scene, a limit below 1, another ``test_states``, or
            where no span is left.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from rftf_torchrl import CalvinWriter, load_demonstrations
        >>> folder = tempfile.mkdtemp()
        >>> with CalvinWriter(folder + "/data") as writer:
        ...     for _ in range(3):
        ...         frame = writer.add_frame(np.zeros(15), np.zeros(24))
        ...     writer.annotate(frame - 2, frame + 1, "open_drawer", "pull the drawer open")
        >>> demos = load_demonstrations(to_demonstrations(folder + "/data", folder + "/demos"))
        >>> [(task.id, task.name) for task in demos.tasks]
        [(14, 'open_drawer')]
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected 1 or more, or None.")
    if test_states not in ("warn", "refuse"):
        raise ValueError(f"test_states is {test_states!r}, expected 'warn' or 'refuse'.")
    names = None if tasks is None else {get_task(name).name for name in tasks}
    splits = [split] if isinstance(split, str) else list(split)
    found: list[tuple[str, CalvinDataset, CalvinSpan]] = []
    steps = 0
    for name in splits:
        dataset = CalvinDataset(
            root,
            name,
            image_size=image_size,
            wrist_size=wrist_size,
            scene=scene,
            tokenizer=tokenizer,
        )
        steps += dataset.simulator_steps
        found += [(name, dataset, span) for span in _chosen(dataset.spans, names, limit)]
    if not found:
        raise ValueError(
            f"No span of {ANNOTATIONS_FILE} in {', '.join(splits)} of {root} has tasks={tasks}: "
            "there is nothing to write."
        )
    present = {span.task for _, _, span in found}
    records = [Task(t.id, t.name, t.instruction) for t in TASKS.values() if t.name in present]
    bar = progress_bar(found, "conversion", unit="spans", show=show_progress)
    tested = 0
    with DemonstrationWriter(out, tasks=records, simulator="calvin") as writer:
        writer.simulator_steps = steps
        for name, dataset, span in bar:
            episode = _episode(dataset, span)
            if dataset.scenes[dataset.episode_of(span.start)] == "D":
                tested += _begins_in_test_scene(dataset, span, episode, test_states == "refuse")
            writer.add_episode(
                episode,
                task_id=span.task_id,
                success=True,
                split=SPLIT_NAMES[name],
                takeover=span.takeover,
            )
        if not all(dataset.complete for _, dataset, _ in found):
            writer.close(complete=False)
    if tested:
        logger.warning(
            "%d of %d spans begin in an initial scene of CALVIN's benchmark: a policy that learns "
            "from them has seen what it is tested on",
            tested,
            len(found),
        )
    return Path(out)


def _chosen(
    spans: Sequence[CalvinSpan], names: Collection[str] | None, limit: int | None
) -> list[CalvinSpan]:
    counts: dict[str, int] = {}
    chosen = []
    for span in spans:
        if names is not None and span.task not in names:
            continue
        counts[span.task] = counts.get(span.task, 0) + 1
        if limit is None or counts[span.task] <= limit:
            chosen.append(span)
    return chosen


def _begins_in_test_scene(
    dataset: CalvinDataset, span: CalvinSpan, episode: TensorDict, refuse: bool
) -> bool:
    number = benchmark_scene(episode[SCENE][0].numpy())
    if number is not None and refuse:
        raise DemonstrationError(
            f"CALVIN data in {dataset.folder}, annotation {span.index}",
            [f"frame {span.start} is the benchmark's initial scene {number}: it must not be used"],
        )
    return number is not None


def _episode(dataset: CalvinDataset, span: CalvinSpan) -> TensorDict:
    try:
        frames = dataset.read_span(span)
    except DemonstrationError as error:
        raise DemonstrationError(
            f"CALVIN data in {dataset.folder}, annotation {span.index}", error.problems
        ) from error
    frames[ACTION][-1] = 0
    return frames
