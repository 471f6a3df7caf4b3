"""Frames a second of ``rftf watch``: decoding, resizing and the value, one frame at a time.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_value_watch.py

A video of 640 x 480. The weights are random: the time does not depend on them. The tower has
DINOv2-S's sizes, or is a quarter as wide with half of the layers.
"""

import argparse
import tempfile
from itertools import islice
from pathlib import Path

from bench_feature_cache import TOWER
from bench_video_decoding import write_film

from rftf_torchrl import (
    ObservationSizes,
    PretrainedEncoderConfig,
    ValueWatch,
    build_value_model,
    stream_frames,
    temporal_value_model,
)

TINY = {**TOWER, "hidden_size": 96, "num_attention_heads": 3, "num_hidden_layers": 6}
MODELS = {
    "small, 64 pixels": lambda: build_value_model("small", {}, ObservationSizes(64)),
    "tiny tower, 224 pixels": lambda: temporal_value_model(PretrainedEncoderConfig(TINY, grid=4)),
    "DINOv2-S, 224 pixels": lambda: temporal_value_model(PretrainedEncoderConfig(TOWER, grid=4)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200)
    arguments = parser.parse_args()
    film = Path(tempfile.mkdtemp()) / "film.mp4"
    write_film(film, arguments.frames, "libx264")
    print("| model | frames/s | median latency | 95% |\n|---|---:|---:|---:|")
    for name, build in MODELS.items():
        model = build()
        for _, frame in islice(stream_frames(str(film)), 3):  # the first calls are slower
            ValueWatch(model, "open the drawer")(frame)
        watch = ValueWatch(model, "open the drawer")
        for _, frame in stream_frames(str(film)):
            watch(frame)
        speed = watch.speed()
        median, high = (f"{1000 * speed[key]:.1f} ms" for key in ("median_latency", "latency_95"))
        print(f"| {name} | {speed['frames_per_second']:.1f} | {median} | {high} |", flush=True)


if __name__ == "__main__":
    main()
