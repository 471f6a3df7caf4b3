"""What decoding costs a value model on a frozen tower: once per frame, and nothing in a step.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_video_decoding.py

Videos of 640 x 480 at 30 frames per second are kept at 5 and at 224 pixels. The tower has
DINOv2-S's sizes and random weights: the time does not depend on them.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from bench_feature_cache import TOWER

from rftf_torchrl import (
    DataConfig,
    PretrainedEncoderConfig,
    TemporalRankingLoss,
    import_videos,
    keep_image_features,
    keys,
    on_cached_features,
    sample_clips,
    temporal_value_model,
)


def write_film(path, count, codec):
    """Soft shapes that move: what a video of a scene costs to decode, not of noise."""
    small = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    picture = av.VideoFrame.from_ndarray(small, "rgb24").reformat(800, 600).to_ndarray()
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=30, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for number in range(count):
            x, y = number % 160, number * 3 % 120
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(picture[y : y + 480, x : x + 640]), "rgb24"
            )
            frame.pts, frame.time_base = number, Fraction(1, 30)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def timed(run):
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--codec", default="libx264")
    parser.add_argument("--steps", type=int, default=400, help="of a training")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    root = Path(tempfile.mkdtemp())
    (root / "videos").mkdir()
    for number in range(arguments.episodes):
        write_film(root / "videos" / f"{number}.mp4", 300, arguments.codec)
    config = {"image_size": 224, "options": {"instruction": "open the drawer"}, "held_out": 0.0}
    data = DataConfig(path=str(root / "videos"), **config)
    demonstrations, decoding = timed(lambda: import_videos(data, root / "data"))
    kept, decoded = demonstrations.num_frames, 300 * arguments.episodes
    model = temporal_value_model(PretrainedEncoderConfig(TOWER, grid=4))
    frames, features = timed(
        lambda: keep_image_features(model, demonstrations.frames, root / "features")
    )
    view = on_cached_features(model)
    loss_module, generator = TemporalRankingLoss(view), torch.Generator().manual_seed(0)
    demonstrations = replace(demonstrations, frames=frames)

    def read():
        return sample_clips(
            demonstrations,
            batch_size=16,
            frames=8,
            generator=generator,
            keys=[*view.in_keys, keys.TASK_ID],
        )

    def step():
        loss_module(read())["loss_ranking"].backward()

    _, reading = timed(lambda: [read() for _ in range(20)])
    _, stepping = timed(lambda: [step() for _ in range(20)])
    reading, training = reading / 20, stepping / 20 * arguments.steps
    whole = decoding + features + training
    print(f"{decoded} frames of {arguments.codec} decoded at {decoded / decoding:.0f} a second")
    print(f"{kept} of them kept; the tower sees {kept / features:.1f} a second")
    print(f"a step of 16 clips of 8 frames: {stepping / 20:.3f} s, {reading:.4f} s of it reading")
    print(
        f"import, tower and {arguments.steps} steps: {whole:.0f} s, decoding {decoding / whole:.1%}"
    )


if __name__ == "__main__":
    main()
