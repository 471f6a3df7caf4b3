"""Index maths that puts as many successful as failed decisions in every stretch of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from rftf_torchrl.functional._checks import require_bool, require_same_shape


class OutcomePools(NamedTuple):
    """The decisions of one task, by the outcome of their trajectory: two ascending int64 [*]."""

    success: torch.Tensor
    failure: torch.Tensor

    @property
    def mixed(self) -> bool:
        """Whether the task has both outcomes."""
        return self.success.numel() > 0 and self.failure.numel() > 0

    @property
    def decisions(self) -> int:
        """The number of decisions of the task."""
        return self.success.numel() + self.failure.numel()


def outcome_pools(success: torch.Tensor, task: torch.Tensor | None = None) -> list[OutcomePools]:
    """Splits decisions by task and, inside a task, by the outcome of their trajectory.

    Args:
        success: bool, [N]: whether the trajectory of each decision succeeded.
        task: integer, [N]: the task of each decision; ``None`` puts all in one task.

    Returns:
        One :class:`OutcomePools` per task, tasks in ascending order. The pools are disjoint and
        hold every index in ``range(N)`` once.

    Raises:
        ValueError: if ``success`` is not one-dimensional or the shapes differ.
        TypeError: if ``success`` is not bool.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import outcome_pools
        >>> success = torch.tensor([True, True, False, False])
        >>> first, second = outcome_pools(success, task=torch.tensor([0, 0, 0, 1]))
        >>> first.success.tolist(), first.failure.tolist(), first.mixed, second.mixed
        ([0, 1], [2], True, False)
    """
    if task is None:
        task = torch.zeros_like(success, dtype=torch.int64)
    require_same_shape(success, "success", task, "task")
    require_bool(success, "success")
    if success.ndim != 1:
        raise ValueError(f"success has shape {list(success.shape)}; expected [N].")
    tasks, stratum = torch.unique(task, return_inverse=True)
    stratum = 2 * stratum + (~success)
    sizes = torch.bincount(stratum, minlength=2 * tasks.numel())
    pools = torch.argsort(stratum, stable=True).split(sizes.tolist())
    return [OutcomePools(*pair) for pair in zip(pools[0::2], pools[1::2], strict=True)]


def find_mixed_trajectory(success: torch.Tensor, trajectory: torch.Tensor) -> int | None:
    """Finds a trajectory that has both outcomes, which means that its flags are wrong.

    Args:
        success: bool, [N]: whether the trajectory of each decision succeeded.
        trajectory: integer, [N]: the trajectory of each decision.

    Returns:
        The smallest id of such a trajectory, or ``None`` if every trajectory has one outcome.

    Raises:
        ValueError: if the shapes differ.
        TypeError: if ``success`` is not bool.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import find_mixed_trajectory
        >>> find_mixed_trajectory(torch.tensor([False, True, True]), torch.tensor([3, 3, 5]))
        3
    """
    require_same_shape(success, "success", trajectory, "trajectory")
    require_bool(success, "success")
    ids, inverse, lengths = torch.unique(trajectory, return_inverse=True, return_counts=True)
    successes = torch.zeros_like(lengths).index_add_(0, inverse, success.to(lengths.dtype))
    mixed = ids[(successes > 0) & (successes < lengths)]
    return int(mixed[0]) if mixed.numel() else None


def pairs_per_task(
    pools: Sequence[OutcomePools],
    epoch: Literal["total", "larger"] = "total",
    offset: int = 0,
) -> tuple[list[int], int | None]:
    """Counts the (success, failure) pairs that each task with both outcomes gets in one epoch.

    ``"total"`` keeps the number of draws at the number n of decisions: task t with n_t decisions
    gets n_t / 2 pairs. Of the tasks with an odd n_t, every second one is rounded up and the others
    down; if that leaves one draw, one more of them gets it as half a pair. ``"larger"`` gives
    task t max(successes, failures) pairs, so that the larger class is visited exactly once.

    Args:
        pools: the pools of the tasks, all with both outcomes.
        epoch: ``"total"`` or ``"larger"``.
        offset: moves the rounding to other tasks; pass the epoch's number.

    Returns:
        The number of pairs of each task, and the position of the task that gets half a pair, or
        ``None`` if no draw is left.

    Raises:
        ValueError: if ``epoch`` is unknown.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import OutcomePools, pairs_per_task
        >>> pools = [OutcomePools(torch.arange(4), torch.arange(4, 7))]
        >>> pairs_per_task(pools, "total"), pairs_per_task(pools, "larger")
        (([3], 0), ([4], None))
    """
    if epoch not in ("total", "larger"):
        raise ValueError(f"epoch is {epoch!r}; expected 'total' or 'larger'.")
    if epoch == "larger":
        return [max(pool.success.numel(), pool.failure.numel()) for pool in pools], None
    pairs = [pool.decisions // 2 for pool in pools]
    odd = [position for position, pool in enumerate(pools) if pool.decisions % 2]
    if odd:
        shift = offset % len(odd)
        odd = odd[shift:] + odd[:shift]
    rounded_up = len(odd) // 2
    for position in odd[:rounded_up]:
        pairs[position] += 1
    return pairs, odd[rounded_up] if len(odd) % 2 else None


def walk_pool(
    order: torch.Tensor,
    cursor: int,
    count: int,
    generator: torch.Generator | None = None,
    shuffle: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Draws from a pool without replacement and shuffles it again each time it is exhausted.

    What was left of the old order at the start of this call comes last in the new ones, so that
    within the draws of one call no index is ahead of another by more than one draw.

    Args:
        order: the pool in its present order, int64, [n], n >= 1.
        cursor: how many indices of ``order`` are used up, in [0, n].
        count: the number of draws.
        generator: source of randomness; ``None`` is torch's global one.
        shuffle: ``False`` walks the pool in the given order again and again.

    Returns:
        The drawn indices [count], the new order [n] and the new cursor, for the next call.

    Raises:
        ValueError: if the pool is empty or ``cursor`` is outside [0, n].

    Examples:
        >>> import torch
        >>> from rftf_torchrl import walk_pool
        >>> drawn, order, cursor = walk_pool(torch.tensor([7, 8, 9]), 1, 4, shuffle=False)
        >>> drawn.tolist(), cursor
        ([8, 9, 7, 8], 2)
    """
    size = order.numel()
    if size == 0 or not 0 <= cursor <= size:
        raise ValueError(
            f"cursor is {cursor} for order of shape {list(order.shape)}; expected a pool that is "
            "not empty and a cursor in [0, n]."
        )
    missing = count - (size - cursor)
    if missing <= 0:
        return order[cursor : cursor + count], order, cursor + count
    cycles = -(missing // -size)
    used, left = order[:cursor], order[cursor:]
    orders = [
        torch.cat([_shuffled(used, generator), _shuffled(left, generator)]) if shuffle else order
        for _ in range(cycles)
    ]
    last = missing - (cycles - 1) * size
    drawn = torch.cat([left, *orders])[:count]
    return drawn, orders[-1], last


def spread_evenly(
    counts: Sequence[int], generator: torch.Generator | None = None, shuffle: bool = True
) -> torch.Tensor:
    r"""Orders the units of several groups so that each stretch holds every group's share of them.

    Unit k of group g with :math:`K_g` units goes to :math:`(k + u_g) / K_g`, with one random
    :math:`u_g` in [0, 1) per group, and the units are sorted by that position.

    Source: systematic sampling (Madow, Annals of Mathematical Statistics 1949).

    Args:
        counts: the number of units of each group, [G].
        generator: source of randomness; ``None`` is torch's global one.
        shuffle: ``False`` sets every offset :math:`u_g` to 0.

    Returns:
        Permutation, int64, [sum(counts)], of the units numbered group by group.

    Examples:
        >>> from rftf_torchrl import spread_evenly
        >>> spread_evenly([4, 2], shuffle=False).tolist()
        [0, 4, 1, 2, 5, 3]
    """
    offsets = torch.zeros(len(counts), dtype=torch.float64)
    if shuffle:
        device = None if generator is None else generator.device
        offsets = torch.rand(len(counts), generator=generator, device=device).cpu().double()
    positions = [
        (torch.arange(count, dtype=torch.float64) + offset) / count
        for count, offset in zip(counts, offsets, strict=True)
        if count
    ]
    if not positions:
        return torch.zeros(0, dtype=torch.int64)
    return torch.cat(positions).argsort(stable=True)


def _shuffled(indices: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    device = None if generator is None else generator.device
    return indices[torch.randperm(indices.numel(), generator=generator, device=device).cpu()]
