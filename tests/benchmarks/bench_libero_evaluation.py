"""How much faster two processes evaluate on LIBERO's official initial states than one.

Two tasks from the state, by a policy that rests, so that every episode takes all its steps. On a
machine with other work seconds say little. So what is compared is processor time: that of the main
process and of the busiest worker, for which an idle machine would wait. The outcomes must be equal.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from tensordict.nn import TensorDictModule

from rftf_torchrl import BenchmarkReport, CollectorConfig, EnvConfig, keys, make_simulator
from rftf_torchrl.libero.simulator import ACTION_DIM

CHUNK_SIZE = 8
TASKS = [
    "pick_up_the_alphabet_soup_and_place_it_in_the_basket",
    "pick_up_the_cream_cheese_and_place_it_in_the_basket",
]


class Resting(torch.nn.Module):
    """Does nothing, and writes its process's processor time to a file named after the process."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        file = self.folder / str(os.getpid())
        file.write_text(str(time.process_time()), encoding="utf-8")
        return torch.zeros(*state.shape[:-1], CHUNK_SIZE, ACTION_DIM)


def evaluation(workers: int, states: int) -> tuple[BenchmarkReport, float, float, float]:
    """The report, seconds, and processor seconds of the main process and of the busiest worker."""
    env = EnvConfig("libero", TASKS, None, CHUNK_SIZE, options={"states_per_task": states})
    with tempfile.TemporaryDirectory() as temporary:
        used = Path(temporary, "used")
        used.mkdir()
        policy = TensorDictModule(Resting(used), [keys.STATE], [keys.CHUNK])
        begin, main = time.perf_counter(), time.process_time()
        report = make_simulator(env).evaluate(
            policy,
            None,
            collector=CollectorConfig(workers=workers),
            deterministic=True,
            seed=0,
            folder=Path(temporary),
            label="resting",
        )
        seconds, main = time.perf_counter() - begin, time.process_time() - main
        workers_used = (file for file in used.iterdir() if file.name != str(os.getpid()))
        busiest = max(float(file.read_text(encoding="utf-8")) for file in workers_used)
        return report, seconds, main, busiest


def compare(states: int) -> None:
    load = os.getloadavg()[0]
    print(f"{states} states of each of {len(TASKS)} tasks, load average {load:.1f} before\n")
    print("| processes | seconds | processor seconds: main + busiest worker | times as fast |")
    print("|---|---|---|---|")
    reports, needed = [], []
    for workers in (1, 2):
        report, seconds, main, busiest = evaluation(workers, states)
        reports.append(report)
        needed.append(main + busiest)
        faster = needed[0] / needed[-1]
        row = f"| {workers} | {seconds:.0f} | {main:.1f} + {busiest:.1f} | {faster:.2f} |"
        print(row, flush=True)
    print(f"\nthe same outcomes: {reports[0].outcomes == reports[1].outcomes}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=50)
    compare(parser.parse_args().states)
