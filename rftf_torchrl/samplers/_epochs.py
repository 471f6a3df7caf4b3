"""The order in which one epoch visits the decisions of a storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from rftf_torchrl.functional.balance import OutcomePools, pairs_per_task, spread_evenly, walk_pool


class PoolWalk:
    """A pool that is drawn from without replacement, call after call."""

    def __init__(self, order: torch.Tensor, cursor: int):
        self.order = order
        self.cursor = cursor

    def draw(self, count: int, generator: torch.Generator | None, shuffle: bool) -> torch.Tensor:
        """Draws the next indices, [count]."""
        drawn, self.order, self.cursor = walk_pool(
            self.order, self.cursor, count, generator, shuffle
        )
        return drawn


class BalancedEpochs:
    """Plans epochs over the pools of each task; :class:`BalancedTrajectorySampler` has the rule.

    Args:
        pools: the decisions of each task, by outcome.
        epoch: which number of draws makes an epoch.
        shuffle: ``False`` walks every pool in storage order.
    """

    def __init__(
        self, pools: Sequence[OutcomePools], epoch: Literal["total", "larger"], shuffle: bool
    ):
        self.epoch = epoch
        self.shuffle = shuffle
        self._walks = [(_exhausted(pool.success), _exhausted(pool.failure)) for pool in pools]

    def plan(self, number: int, generator: torch.Generator | None) -> torch.Tensor:
        """Plans the epoch with this number: indices, int64, [draws], to be cut into minibatches."""
        failure_first = number % 2 == 1
        first, second, counts, rest = [], [], [], []
        mixed = [walks for walks in self._walks if _pools(walks).mixed]
        pairs, half = pairs_per_task([_pools(walks) for walks in mixed], self.epoch, number)
        for position, (walks, count) in enumerate(zip(mixed, pairs, strict=True)):
            leading, trailing = reversed(walks) if failure_first else walks
            drawn = leading.draw(count + (position == half), generator, self.shuffle)
            first.append(drawn[:count])
            rest.append(drawn[count:])
            second.append(trailing.draw(count, generator, self.shuffle))
            counts.append(count)
        single = self._visit_single_outcome_tasks(generator)
        paired = single.numel() // 2 * 2
        first.append(single[0:paired:2])
        second.append(single[1:paired:2])
        rest.append(single[paired:])
        counts.append(paired // 2)
        units = torch.stack([torch.cat(first), torch.cat(second)], dim=-1)
        order = spread_evenly(counts, generator, self.shuffle)
        return torch.cat([units[order].flatten(), *rest])

    def _visit_single_outcome_tasks(self, generator: torch.Generator | None) -> torch.Tensor:
        walks = [
            walk
            for pair in self._walks
            if not _pools(pair).mixed
            for walk in pair
            if walk.order.numel()
        ]
        counts = [walk.order.numel() for walk in walks]
        if not counts:
            return torch.zeros(0, dtype=torch.int64)
        visits = [walk.draw(walk.order.numel(), generator, self.shuffle) for walk in walks]
        return torch.cat(visits)[spread_evenly(counts, generator, self.shuffle)]

    def state(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns all orders, int64 [N], and each pool's size and cursor, int64 [tasks, 2, 2]."""
        walks = [walk for pair in self._walks for walk in pair]
        layout = torch.tensor([[walk.order.numel(), walk.cursor] for walk in walks])
        return torch.cat([walk.order for walk in walks]), layout.view(-1, 2, 2)

    def load_state(self, order: torch.Tensor, layout: torch.Tensor) -> None:
        """Restores what :meth:`state` returned."""
        orders = order.clone().split(layout[..., 0].flatten().tolist())
        walks = [
            PoolWalk(order, cursor)
            for order, cursor in zip(orders, layout[..., 1].flatten().tolist(), strict=True)
        ]
        self._walks = list(zip(walks[0::2], walks[1::2], strict=True))


def _exhausted(pool: torch.Tensor) -> PoolWalk:
    return PoolWalk(pool, pool.numel())


def _pools(walks: tuple[PoolWalk, PoolWalk]) -> OutcomePools:
    return OutcomePools(walks[0].order, walks[1].order)
