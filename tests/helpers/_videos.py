"""Tiny sources of videos: videos, LeRobot's data sets, HDF5, whose frames get brighter."""

import csv
import json
from fractions import Fraction
from io import BytesIO

import av
import h5py
import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet


def brightening(count=10, height=16, width=24, first=0, last=240):
    """uint8 [T, h, w, 3]: grey that rises from ``first`` to ``last``, blue on the left half."""
    level = np.linspace(first, last, count).round().astype(np.uint8)
    frames = np.broadcast_to(level[:, None, None, None], (count, height, width, 3)).copy()
    frames[:, :, : width // 2, 2] = 255
    return frames


def write_film(path, frames, *, codec="libx264", rate=10, pix_fmt="yuv420p", times=None, **options):
    """Write a video; ``times`` are the frames' times in milliseconds, by default even ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=rate, options={k: str(v) for k, v in options.items()})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            time = number * 1000 // rate if times is None else times[number]
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return path


def turn_film(path, quarter_turns):
    """Make an mp4 say that it is shown turned, as telephones do: the matrix in its header."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    matrices = {
        1: [0, 1, 0, -1, 0, 0, 0, 0, 0x4000],
        2: [-1, 0, 0, 0, -1, 0, 0, 0, 0x4000],
        3: [0, -1, 0, 1, 0, 0, 0, 0, 0x4000],
    }
    values = [
        value * 0x10000 if abs(value) <= 1 else 0x40000000 for value in matrices[quarter_turns]
    ]
    content[at : at + 36] = b"".join((v & 0xFFFFFFFF).to_bytes(4, "big") for v in values)
    path.write_bytes(bytes(content))
    return path


def write_captions(root, rows):
    """``captions.csv`` with the columns of the first row."""
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return root


def write_videos(root, episodes=4, *, count=10, failures=False):
    """Videos of two tasks, ``open-0.mp4``, ``close-1.mp4``, ..., with captions.

    The frames of ``close`` get darker. With ``failures``, every video has a second one in which
    nothing happens, labelled as a failure.
    """
    rows = []
    for number in range(episodes):
        word = ("open", "close")[number % 2]
        frames = brightening(count + number % 3)
        frames = frames if word == "open" else frames[::-1]
        write_film(root / f"{word}-{number}.mp4", frames)
        sentence = f"{word} the drawer"
        rows.append({"file": f"{word}-{number}.mp4", "instruction": sentence, "success": "true"})
        if failures:
            still = np.repeat(frames[:1], count, 0)
            write_film(root / f"{word}-{number}-failed.mp4", still)
            name = f"{word}-{number}-failed.mp4"
            rows.append({"file": name, "instruction": sentence, "success": "false"})
    return write_captions(root, rows)


def png(pixels):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


LEROBOT_SENTENCES = ("open the drawer", "close the drawer")


def lerobot_episodes(episodes=3):
    """(frames, task index, success) of each episode."""
    return [
        (brightening(6 + number, 64, 96, first=10 * number), number % 2, number != 1)
        for number in range(episodes)
    ]


def write_lerobot(
    root,
    *,
    version="v3.0",
    episodes=3,
    codec="libsvtav1",
    cameras=("front",),
    dtype="video",
    per_file=2,
    success=True,
    pandas_index=False,
):
    """Write a LeRobot data set as LeRobot does: v3.0 with ``per_file`` episodes in a file, or v2.1.

    Returns:
        The frames of each episode, before they were encoded.
    """
    rate, made = 10, lerobot_episodes(episodes)
    keys = [f"observation.images.{camera}" for camera in cameras]
    old = version != "v3.0"
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": None},
        "action": {"dtype": "float32", "shape": [2], "names": None},
        **{
            name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1]}
            for name in ("timestamp", "frame_index", "episode_index", "index", "task_index")
        },
        **{key: {"dtype": dtype, "shape": [64, 96, 3]} for key in keys},
    }
    if success:
        features["next.success"] = {"dtype": "bool", "shape": [1], "names": None}
    if old:
        data_path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        video_path = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    else:
        data_path = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        video_path = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    info = {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": episodes,
        "total_frames": sum(len(frames) for frames, _, _ in made),
        "total_tasks": 2,
        "chunks_size": 1000,
        "fps": rate,
        "splits": {"train": f"0:{episodes}"},
        "data_path": data_path,
        "video_path": video_path if dtype == "video" else None,
        "features": features,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info, indent=4), encoding="utf-8")

    groups = [[n] for n in range(episodes)]
    if not old:
        groups = [list(range(n, min(n + per_file, episodes))) for n in range(0, episodes, per_file)]
    rows, index = [], 0
    for file_index, group in enumerate(groups):
        table, film, start = [], [], 0.0
        for number in group:
            frames, task, won = made[number]
            length = len(frames)
            for frame in range(length):
                row = {
                    "observation.state": [0.0, 1.0],
                    "action": [0.5, 0.5],
                    "timestamp": frame / rate,
                    "frame_index": frame,
                    "episode_index": number,
                    "index": index + frame,
                    "task_index": task,
                }
                if dtype == "image":
                    name = f"frame_{frame:06d}.png"
                    row |= {key: {"bytes": png(frames[frame]), "path": name} for key in keys}
                if success:
                    row["next.success"] = won and frame == length - 1
                table.append(row)
            place = {"chunk_index": 0, "file_index": file_index}
            row = {
                "episode_index": number,
                "tasks": [LEROBOT_SENTENCES[task]],
                "length": length,
            }
            if not old:
                row |= {f"data/{name}": value for name, value in place.items()}
                row |= {"dataset_from_index": index, "dataset_to_index": index + length}
                row |= {"stats/action/mean": [0.5, 0.5]}
                for key in keys if dtype == "video" else []:
                    row |= {f"videos/{key}/{name}": value for name, value in place.items()}
                    row[f"videos/{key}/from_timestamp"] = start
                    row[f"videos/{key}/to_timestamp"] = start + length / rate
            rows.append(row)
            film.append(frames)
            index, start = index + length, start + length / rate
        places = {
            **{"episode_chunk": 0, "episode_index": group[0]},
            **{"chunk_index": 0, "file_index": file_index},
        }
        data = root / data_path.format(**places)
        data.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(table), data)
        for number, key in enumerate(keys if dtype == "video" else []):
            pixels = np.concatenate(film)
            pixels = pixels if number == 0 else 255 - pixels
            path = root / video_path.format(video_key=key, **places)
            write_film(path, pixels, codec=codec, rate=rate, g=2, crf=5)
    _write_meta(root, rows, old, pandas_index)
    return [frames for frames, _, _ in made]


def _write_meta(root, rows, old, pandas_index):
    tasks = [{"task_index": i, "task": s} for i, s in enumerate(LEROBOT_SENTENCES)]
    if old:
        for name, content in (("tasks", tasks), ("episodes", rows)):
            lines = "".join(json.dumps(row) + "\n" for row in content)
            (root / "meta" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        return
    column = "__index_level_0__" if pandas_index else "task"
    tasks = [{"task_index": row["task_index"], column: row["task"]} for row in tasks]
    parquet.write_table(pa.Table.from_pylist(tasks), root / "meta" / "tasks.parquet")
    folder = root / "meta" / "episodes" / "chunk-000"
    folder.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows), folder / "file-000.parquet")


def write_hdf5(path, *, episodes=2, camera="agentview_rgb", upside_down=False, sentence=True):
    """Write a file as LIBERO does; returns the frames of each episode, right way up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [brightening(5 + number, 16, 16) for number in range(episodes)]
    for frames in made:
        frames[:, :4, :, 0] = 200  # red above, so that upside down is not the same
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if sentence:
            info = {"problem_name": "x", "language_instruction": ["put", "the", "bowl", "down"]}
            data.attrs["problem_info"] = json.dumps(info)
        if upside_down:
            data.attrs["macros_image_convention"] = "opengl"
        for number, frames in enumerate(made):
            demo = data.create_group(f"demo_{number}")
            demo["obs/" + camera] = frames[:, ::-1] if upside_down else frames
            demo["actions"] = np.zeros((len(frames), 7))
            demo["dones"] = np.zeros(len(frames), dtype=np.uint8)
    return made
