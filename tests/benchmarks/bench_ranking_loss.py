"""The ranking loss of 64 rows of 32 frames, forward and backward, against the double loop."""

from __future__ import annotations

import time

import torch
from torch.nn.functional import logsigmoid

from rftf_torchrl import temporal_ranking_loss


def double_loop(values: torch.Tensor) -> torch.Tensor:
    """The formula as it is written."""
    rows, n = values.shape
    loss = values.new_zeros(())
    for row in range(rows):
        for i in range(n):
            for j in range(i + 1, n):
                loss = loss - logsigmoid(values[row, j] - values[row, i])
    return loss / (rows * n * (n - 1) / 2)


def best_seconds(loss, values: torch.Tensor, repeats: int) -> tuple[float, torch.Tensor]:
    spent = []
    for _ in range(repeats):
        values.grad = None
        begin = time.process_time()
        loss(values).backward()
        spent.append(time.process_time() - begin)
    return min(spent), values.grad


if __name__ == "__main__":
    torch.set_num_threads(1)
    values = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loop, expected = best_seconds(double_loop, values, 1)
    ours, gradient = best_seconds(temporal_ranking_loss, values, 20)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)
    print("| loss | ms | times faster |\n|---|---|---|")
    print(f"| double loop | {loop * 1e3:.1f} | 1 |")
    print(f"| temporal_ranking_loss | {ours * 1e3:.2f} | {loop / ours:.0f} |")
