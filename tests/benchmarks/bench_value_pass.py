"""Peak memory of one value pass over a batch: bounded by ``chunk_size``, not by the batch."""

from __future__ import annotations

import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl.keys import IMAGE, TEMPORAL_VALUE
from rftf_torchrl.nets.evaluate_states import evaluate_states


class Convolutions(nn.Sequential):
    """Enough channels that activations outweigh the images."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.Flatten()
        )

    def forward(self, image):
        return super().forward(image.float() / 255).mean(-1, keepdim=True)


def extra_megabytes(states: int, chunk_size: int) -> float:
    """Growth of this fresh process's peak memory during the pass."""
    torch.set_num_threads(1)
    model = TensorDictModule(Convolutions(), in_keys=[IMAGE], out_keys=[TEMPORAL_VALUE])
    data = TensorDict({IMAGE: torch.zeros(states, 3, 64, 64, dtype=torch.uint8)}, [states])
    evaluate_states(model, data[:1], chunk_size=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    evaluate_states(model, data, chunk_size=chunk_size)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


if __name__ == "__main__":
    print("| states | chunk_size | extra MB at the peak |\n|---|---|---|")
    for states, chunk_size in ((128, 32), (512, 32), (128, 128), (512, 512)):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            extra = pool.submit(extra_megabytes, states, chunk_size).result()
        print(f"| {states} | {chunk_size} | {extra:.0f} |")
