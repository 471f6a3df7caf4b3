"""The memory of importing videos and training on them, by the size of what is decoded.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_video_memory.py --gib 0.5 2

One video of 10 s is linked as many times as it takes. ``anonymous`` is the memory that belongs to
the process; pages of the memory-mapped frames are the system's, which takes them back when it needs
them, and are counted by themselves.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
from bench_video_decoding import write_film

from rftf_torchrl import (
    DataConfig,
    EncoderConfig,
    TemporalRankingLoss,
    import_videos,
    sample_clips,
    temporal_value_model,
)

SIZE = 224


class Peak(threading.Thread):
    """The largest memory of this process while it runs, in MiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.anonymous = self.mapped = 0.0

    def run(self):
        process = psutil.Process()
        while True:
            memory = process.memory_info()
            self.anonymous = max(self.anonymous, (memory.rss - memory.shared) / 2**20)
            self.mapped = max(self.mapped, memory.shared / 2**20)
            time.sleep(0.02)


def measure(gib, steps):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "videos").mkdir()
        write_film(root / "film.mp4", 300, "libx264")
        episodes = int(gib * 2**30 / (51 * 3 * SIZE**2))
        for number in range(episodes):
            (root / "videos" / f"{number}.mp4").hardlink_to(root / "film.mp4")
        peak = Peak()
        peak.start()
        options = {"instruction": "open the drawer"}
        data = DataConfig(path=str(root / "videos"), image_size=SIZE, options=options)
        demonstrations = import_videos(data, root / "data")
        imported = peak.anonymous
        torch.manual_seed(0)
        model = temporal_value_model(EncoderConfig(image_size=SIZE))
        loss_module, generator = TemporalRankingLoss(model), torch.Generator().manual_seed(0)
        for _ in range(steps):
            clips = sample_clips(demonstrations, batch_size=4, frames=4, generator=generator)
            loss_module(clips)["loss_ranking"].backward()
        print(
            f"{demonstrations.num_frames} frames, {gib:g} GiB: anonymous {imported:.0f} MiB at "
            f"most in the import, {peak.anonymous:.0f} MiB with {steps} steps of training; mapped "
            f"{peak.mapped:.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, nargs="+", default=[0.25, 1.0])
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    if len(arguments.gib) > 1:  # each in a process of its own
        for size in arguments.gib:
            own = ["--gib", str(size), "--steps", str(arguments.steps)]
            subprocess.run([sys.executable, __file__, *own], check=True)
    else:
        measure(arguments.gib[0], arguments.steps)
