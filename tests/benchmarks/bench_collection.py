"""What the episode collector costs on top of simulating and rendering the same episodes.

Target: at least 0.85 of the raw rate.
"""

from __future__ import annotations

import time
from multiprocessing import get_context

import torch
from tensordict.nn import TensorDictModule

from rftf_torchrl import Episode, EpisodeCollector, MetaWorldFactory
from rftf_torchrl.keys import CHUNK, STATE

CHUNK_SIZE, REPEAT, HORIZON = 5, 2, 20
EPISODES = [
    Episode(task, s) for s in range(4) for task in ("drawer-open", "push", "reach", "door-lock")
]
FACTORY = MetaWorldFactory("train", chunk_size=CHUNK_SIZE, action_repeat=REPEAT, horizon=HORIZON)
SIMULATORS = {}


def random_chunks(state):
    return torch.rand(*state.shape[:-1], CHUNK_SIZE, 4) * 2 - 1


def simulate(episodes_and_chunks) -> None:
    """The same work without TorchRL: reset, step and draw."""
    for episode, chunks in episodes_and_chunks:
        if episode.task not in SIMULATORS:
            SIMULATORS[episode.task] = FACTORY(episode).simulator
        simulator = SIMULATORS[episode.task]
        simulator.reset(episode.seed)
        simulator.picture(64)
        for chunk in chunks:
            for action in chunk:
                for _ in range(REPEAT):
                    simulator.step(action)
            simulator.picture(64)


def best_of_three(function, clock) -> float:
    function()
    seconds = []
    for _ in range(3):
        begin = clock()
        function()
        seconds.append(clock() - begin)
    return len(EPISODES) * HORIZON / min(seconds)


if __name__ == "__main__":
    torch.set_num_threads(1)
    policy = TensorDictModule(random_chunks, in_keys=[STATE], out_keys=[CHUNK])
    print("| processes | raw decisions/s | collector decisions/s | ratio |\n|---|---|---|---|")
    for workers, clock in ((0, time.process_time), (2, time.perf_counter)):
        with EpisodeCollector(FACTORY, policy, workers=workers) as collector:
            batch = collector.collect(EPISODES)
            rate = best_of_three(lambda c=collector: c.collect(EPISODES), clock)
        chunks = [part.numpy() for part in batch[CHUNK].split(HORIZON)]
        work = list(zip(EPISODES, chunks, strict=True))
        if workers:
            with get_context("forkserver").Pool(workers) as pool:
                halves = [work[0::2], work[1::2]]
                raw = best_of_three(lambda p=pool, h=halves: p.map(simulate, h, 1), clock)
        else:
            raw = best_of_three(lambda w=work: simulate(w), clock)
        print(f"| {workers or 'this one'} | {raw:.0f} | {rate:.0f} | {rate / raw:.2f} |")
