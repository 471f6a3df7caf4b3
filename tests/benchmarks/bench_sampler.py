"""What balance costs: our sampler against TorchRL's SamplerWithoutReplacement."""

from __future__ import annotations

import time

import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, SamplerWithoutReplacement, TensorDictReplayBuffer

from rftf_torchrl import BalancedTrajectorySampler
from rftf_torchrl.keys import STATE, TASK_ID, TRAJECTORY, TRAJECTORY_SUCCESS

TRAJECTORIES, LENGTH, TASKS, BATCH = 128, 50, 5, 256


def decisions() -> TensorDict:
    ids = torch.arange(TRAJECTORIES).repeat_interleave(LENGTH)
    return TensorDict(
        {
            STATE: torch.randn(len(ids), 39),
            TRAJECTORY: ids,
            TRAJECTORY_SUCCESS: (ids % 4 == 0).unsqueeze(-1),
            TASK_ID: (ids % TASKS).unsqueeze(-1),
        },
        [len(ids)],
    )


def seconds_per_iteration(sampler, data: TensorDict, iterations: int = 5) -> float:
    """Empty the buffer, fill it and walk one epoch, as one iteration of PPO does."""
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(len(data)), sampler=sampler, batch_size=BATCH
    )
    spent = []
    for _ in range(iterations):
        begin = time.process_time()
        buffer.empty()
        buffer.extend(data)
        for _batch in buffer:
            pass
        spent.append(time.process_time() - begin)
    return min(spent)


if __name__ == "__main__":
    torch.set_num_threads(1)
    data = decisions()
    stock = seconds_per_iteration(SamplerWithoutReplacement(), data)
    ours = seconds_per_iteration(BalancedTrajectorySampler(seed=0), data)
    print("| sampler | ms per epoch | ratio |\n|---|---|---|")
    print(f"| SamplerWithoutReplacement | {stock * 1e3:.1f} | 1.0 |")
    print(f"| BalancedTrajectorySampler | {ours * 1e3:.1f} | {ours / stock:.1f} |")
