"""Annotate a data set with the value of every frame, and flag episodes that look wrong.

    python recipes/annotate.py data=my_videos value.path=value.safetensors output=outputs/curated
    python recipes/annotate.py data=my_lerobot_data output=outputs/run annotate.videos=20

Decodes the episodes one by one, all of their frames, at the size of the images that the value
model was trained on; the source is not changed. Values are stored. So a run that was killed
continues, and one with other thresholds decodes only what its videos need.

Writes ``<output>/annotation``:

- ``progress.parquet``: the value of every frame in LeRobot's columns;
- ``report.md`` and ``report.json``: which episodes look failed, mislabelled, idle or cut off, each
  with its number and threshold;
- plots of the values over time, and videos with the value drawn below them, flagged episodes first.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from rftf_torchrl import (
    BadEpisodeError,
    DataConfig,
    EpisodeFlag,
    RunConfig,
    VideoEpisode,
    flag_episode,
    markdown_table,
    overlay_value,
    plot_episode_values,
    prepare_output,
    recipe,
    resolve_device,
    run_report,
    write_json,
    write_text,
    write_video,
)
from rftf_torchrl.configs.artefacts import (
    load_value_model,
    need,
    needs_file,
    shown_as_trained,
)
from rftf_torchrl.configs.record import name_of
from rftf_torchrl.configs.run import stage
from rftf_torchrl.data.readers.door import guess_reader
from rftf_torchrl.data.readers.importing import keep_episodes, listed_episodes
from rftf_torchrl.data.readers.pictures import file_version
from rftf_torchrl.evaluation.annotation import FLAGS, longest_idle
from rftf_torchrl.evaluation.progress_table import progress_path, write_progress
from rftf_torchrl.evaluation.report import film_images, image
from rftf_torchrl.evaluation.unknown_instructions import warn_of
from rftf_torchrl.evaluation.video import enlarge, pane_width
from rftf_torchrl.evaluation.video_values import VideoValues
from rftf_torchrl.rows_file import RowsFile

logger = logging.getLogger("annotate")

PANELS = 40
"""Episodes on a page of plots."""
FILMED = 300
"""The most frames of a video; of longer episodes as many, evenly spaced."""


@dataclass(frozen=True)
class Annotated:
    """An episode's record, its place in the file of values, and its flags."""

    place: int
    record: dict[str, Any]
    flags: list[EpisodeFlag]

    @property
    def names(self) -> str:
        return ", ".join(flag.name for flag in self.flags)


def needs_data(config: RunConfig) -> None:
    """Raises ``ValueError`` where there is nothing to annotate."""
    if config.data.path is None:
        raise ValueError("there is nothing to annotate: give videos or a data set by data=<path>")


def entitled(config: RunConfig) -> None:
    """Stop where there is nothing to annotate, or no value model to do it."""
    needs_data(config)
    need(config, value_model=True, any_size=True)


def instructions(data: DataConfig, values: VideoValues) -> dict[str, str]:
    """The instructions that can be read, and the tasks that they are of; decodes nothing."""
    tasks: dict[str, str] = {}
    for episode in listed_episodes(data):
        if isinstance(episode, VideoEpisode) and values.can_read(episode.instruction):
            tasks.setdefault(episode.instruction, episode.task or episode.instruction)
    return tasks


def keep_values(config: RunConfig, data: DataConfig, values: VideoValues, folder: Path) -> RowsFile:
    """The values of every episode, those of an earlier run of the same model and data included."""
    settings = config.annotate
    given = instructions(data, values)
    unknown = sorted(repr(instruction) for instruction in given if not values.knows(instruction))
    if unknown:
        warn_of(unknown)
    tasks = dict(islice(given.items(), settings.sentences))
    file = config.folder.value_model
    made_by = {
        "value": file_version(file) if needs_file(config) else asdict(config.value),
        "data": asdict(replace(data, cache=None, skip_bad=False)),
        "sentences": tasks,
        "idle": [settings.idle_value, settings.idle_picture],
    }
    kept, made_by_file = folder / ".values", folder / ".values.json"
    if (
        not made_by_file.is_file()
        or json.loads(made_by_file.read_text(encoding="utf-8")) != made_by
    ):
        for old in folder.glob(".values*"):
            old.unlink()
        write_json(made_by_file, made_by)

    def annotated(episode: VideoEpisode) -> tuple[memoryview, dict[str, Any]]:
        own, frames = episode.instruction, episode.read()
        task = episode.task or own
        try:
            curve = values(frames, own)
            others = {
                sentence: float(values(frames[-1:], sentence))
                for sentence, other in tasks.items()
                if other != task
            }
        except ValueError as error:
            raise BadEpisodeError(str(error)) from error
        return curve.numpy().data.cast("B"), {
            "frames": len(frames),
            "row": episode.row,
            "fps": episode.fps,
            "others": others,
            "idle": longest_idle(curve, frames, settings),
        }

    rows = RowsFile(kept)
    keep_episodes(data, rows, annotated)
    return rows


def curve_of(rows: RowsFile, place: int) -> torch.Tensor:
    return torch.frombuffer(bytearray(rows.read(place)), dtype=torch.float32)


def flagged_episodes(config: RunConfig, rows: RowsFile) -> list[Annotated]:
    """The episodes that could be used, with what looks wrong with each."""
    return [
        Annotated(
            place,
            record,
            flag_episode(
                curve_of(rows, place),
                config.annotate,
                success=record["success"],
                others=record["others"],
                idle=record["idle"],
            ),
        )
        for place, record in enumerate(rows.records)
        if "problem" not in record
    ]


def progress(rows: RowsFile, episodes: list[Annotated]) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Row of the first frame, number and values of each; rows are counted where there are none."""
    counted = 0
    for episode in episodes:
        record = episode.record
        first = counted if record["row"] is None else record["row"]
        yield first, record["index"], curve_of(rows, episode.place)
        counted = first + record["frames"]


def write_plots(rows: RowsFile, shown: list[Annotated], folder: Path) -> list[Path]:
    """Pages of small plots."""
    pages: list[Path] = []
    for begin in range(0, len(shown), PANELS):
        curves, flagged = {}, []
        for episode in shown[begin : begin + PANELS]:
            name = f"episode {episode.record['index']}\n{episode.names or 'no flag'}"
            curves[name] = curve_of(rows, episode.place)
            flagged += [name] * bool(episode.flags)
        path = prepare_output(folder) / f"page_{len(pages):03d}.png"
        pages.append(plot_episode_values(curves, path, flagged=flagged))
    return pages


def write_films(
    config: RunConfig, data: DataConfig, rows: RowsFile, shown: list[Annotated], folder: Path
) -> list[Path]:
    """Decode the episodes once more, larger, and draw the value below the image."""
    by_index = {episode.record["index"]: episode for episode in shown}
    size = config.evaluation.video_size
    data = replace(data, image_size=size, episodes=sorted(by_index))
    films = []
    for source in listed_episodes(data) if by_index else ():
        if not isinstance(source, VideoEpisode) or source.index not in by_index:
            continue
        episode = by_index[source.index]
        frames, curve = source.read(), curve_of(rows, episode.place)
        kept = torch.linspace(0, len(curve) - 1, min(len(curve), FILMED)).round().long()
        film = overlay_value(
            enlarge(frames[kept], max(size, pane_width(1))),
            curve[kept],
            success=source.success,
            title=source.instruction,
            label=", ".join(filter(None, [episode.names, "label" * (source.success is not None)])),
        )
        path = prepare_output(folder) / f"episode_{source.index:06d}.mp4"
        seconds = len(curve) / (source.fps or 10)
        films.append(write_video(film, path, fps=len(kept) / seconds))
    return films


def summary_tables(rows: RowsFile, episodes: list[Annotated]) -> dict[str, str]:
    """How often each flag was raised, where, and what could not be used."""
    counts = Counter(flag.name for episode in episodes for flag in episode.flags)
    bad = [record for record in rows.records if "problem" in record]
    flagged = [episode for episode in episodes if episode.flags]
    frames = sum(episode.record["frames"] for episode in episodes)
    said = f"{len(episodes)} episodes, {frames} frames; {len(flagged)} episodes are flagged."
    table = markdown_table(
        ["flag", "episodes", "its number"],
        [[name, counts[name], meaning] for name, meaning in FLAGS.items()],
        align="lrl",
    )
    listed = [
        [
            *(episode.record[name] for name in ("index", "name", "instruction")),
            *(flag.name, f"{flag.number:.2f}", f"{flag.threshold:g}", flag.detail),
        ]
        for episode in flagged
        for flag in episode.flags
    ]
    header = ["episode", "name", "sentence", "flag", "number", "threshold", "what"]
    return {
        "Summary": f"{said}\n\n{table}",
        "Flagged episodes": markdown_table(header, listed, align="llllrrl") if listed else "",
        "Left out": "\n".join(f"- {record['name']}: {record['problem']}" for record in bad),
    }


@stage(
    "annotate",
    "annotation",
    about=lambda config: f"{config.folder.value_model} on every frame of {config.data.path}",
    writes=lambda config: config.folder.annotation / "report.md",
    entitled=entitled,
)
def annotate(config: RunConfig) -> dict[str, Any]:
    model = load_value_model(config).to(resolve_device(config.device))
    values = VideoValues(model, **shown_as_trained(config, model))
    folder = prepare_output(config.folder.annotation)
    data = replace(
        config.data,
        kind=config.data.kind or guess_reader(str(config.data.path)),
        image_size=values.image_size or config.data.image_size,
        fps=None,
    )
    rows = keep_values(config, data, values, folder)
    episodes = flagged_episodes(config, rows)
    write_progress(progress(rows, episodes), progress_path(folder))
    in_order = sorted(episodes, key=lambda episode: not episode.flags)
    for name in ("plots", "videos"):
        shutil.rmtree(folder / name, ignore_errors=True)
    pages = write_plots(rows, in_order[: config.annotate.plots], folder / "plots")
    filmed = in_order[: config.annotate.videos]
    films = write_films(config, data, rows, filmed, folder / "videos")

    used = {
        "data": data.path,
        "kind": data.kind,
        "value_model": name_of(config, config.folder.value_model)
        if needs_file(config)
        else config.value.kind,
        "image_size": data.image_size,
    }
    report = {
        **used,
        "settings": asdict(config.annotate),
        "left_out": [record for record in rows.records if "problem" in record],
        "episodes": [
            {
                **{key: episode.record[key] for key in ("index", "name", "instruction", "success")},
                "frames": episode.record["frames"],
                "first_value": float(curve[0]),
                "last_value": float(curve[-1]),
                "flags": [asdict(flag) for flag in episode.flags],
            }
            for episode in episodes
            for curve in [curve_of(rows, episode.place)]
        ],
    }
    text = run_report(
        "Annotation",
        {
            **summary_tables(rows, episodes),
            "Values": "\n\n".join(image(page.relative_to(folder)) for page in pages),
            "Films": film_images(films, folder),
            "What was used": "\n".join(f"- {name}: {what}" for name, what in used.items()),
        },
    )
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", text)
    logger.info("\n%s\nvalues, plots and videos: %s", text, folder)
    return report


@recipe()
def main(config: RunConfig) -> None:
    annotate(config)


if __name__ == "__main__":
    main()
