"""The gradient of a batch in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import ceil
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from rftf_torchrl.objectives.cloning import ChunkCloningLoss
from rftf_torchrl.objectives.loss_keys import row_mask
from rftf_torchrl.training.guards import LOSS_PREFIX
from rftf_torchrl.training.processes import reduce_in_place


def accumulate_gradients(
    loss_module: nn.Module,
    batch: TensorDictBase,
    micro_batch: int,
    *,
    terms: Collection[str] | None = None,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    count: Callable[[TensorDictBase], Tensor | float] | None = None,
    group: dist.ProcessGroup | None = None,
) -> TensorDictBase:
    r"""Runs the loss on pieces of a batch, and adds up the gradient of the whole.

    .. math::
        \nabla L = \sum_i \frac{n_i}{\sum_j n_j} \nabla L_i

    where :math:`L_i` is the mean over the :math:`n_i` rows of piece i, so that a smaller last piece
    counts for less. A PPO loss with ``normalize_advantage`` gets its advantages normalised over
    the whole batch. Call it between ``optimizer.zero_grad()`` and ``optimizer.step()``.

    With a ``group`` of processes that all have the batch, each computes a part of it, and all end
    with the gradient of the whole; FSDP, which sums the gradients of what it has divided, must
    not average them. Under DistributedDataParallel, where each has a batch of its own instead,
    processes exchange gradients once, after the last piece.

    Args:
        loss_module: a :class:`torchrl.objectives.LossModule` with ``reduction="mean"``, or
            DistributedDataParallel around one (build the loss with ``functional=False``).
        batch: the batch, split along its first dimension.
        micro_batch: most rows per piece.
        terms: names of the entries that are summed to the loss; None takes every ``"loss_"``.
        context: called around each forward pass, such as ``lambda: autocast(device)``.
        count: how many elements the loss's mean runs over in a piece. None counts the actions that
            a :class:`ChunkCloningLoss` does, and of other losses the rows, or the True entries of
            the masks that the loss honours (``("collector", "mask")``).
        group: the processes that share the batch; the loss is then no DistributedDataParallel.

    Returns:
        The loss terms and diagnostics of the whole batch, detached. Terms are exact, and so are
        means in a batch without padding; ``"max_ratio"`` is the maximum. ``"ESS"``,
        ``"explained_variance"`` and, with padding, means that a loss takes over all rows are
        averages over pieces and processes.

    Raises:
        ValueError: if ``micro_batch`` is no positive number, the batch is empty, or the loss does
            not reduce by the mean.

    Example:
        >>> from tensordict.nn import TensorDictModule
        >>> from torchrl.objectives import BCLoss
        >>> actor = TensorDictModule(nn.Linear(2, 1), ["observation"], ["action"])
        >>> data = {"observation": torch.randn(5, 2), "action": torch.zeros(5, 1)}
        >>> loss = BCLoss(actor, loss_function="l2")
        >>> losses = accumulate_gradients(loss, TensorDict(data, [5]), micro_batch=2)
        >>> losses["loss_bc"].requires_grad
        False
    """
    if micro_batch < 1:
        raise ValueError(f"micro_batch is {micro_batch}, expected at least 1 row.")
    if not batch.batch_dims or not batch.shape[0]:
        raise ValueError(f"the batch has shape {tuple(batch.shape)}, expected at least one row.")
    inner: Any = loss_module
    if isinstance(loss_module, DistributedDataParallel):
        inner = loss_module.module
    reduction = getattr(inner, "reduction", "mean") or "mean"
    if reduction != "mean":
        raise ValueError(
            f"the loss reduces by {reduction!r}, expected 'mean': pieces are weighted by their "
            "number of rows."
        )
    normalize = getattr(inner, "normalize_advantage", False) and inner.advantage_norm is None
    rank, world = (dist.get_rank(group), dist.get_world_size(group)) if group else (0, 1)
    if normalize and (len(batch) > micro_batch or world > 1):
        batch = _with_normalized_advantage(inner, batch)
        inner.normalize_advantage = False
    try:
        parts = [part.split(micro_batch) for part in batch.split(ceil(len(batch) / world))]
        own = inner.count if isinstance(inner, ChunkCloningLoss) else partial(_rows, inner)
        counted = count or own
        counts = [
            torch.stack([torch.as_tensor(counted(piece)).float() for piece in pieces])
            for pieces in parts
        ]
        total = torch.cat(counts).sum().clamp_min(1)
        pieces, shares = [], []
        if rank < len(parts):
            pieces, shares = [*parts[rank]], (counts[rank] / total).tolist()
        if not group and any(shares):  # a piece of padding alone has no mean
            kept = [number for number, share in enumerate(shares) if share]
            pieces, shares = [pieces[k] for k in kept], [shares[k] for k in kept]
        # All processes do the same passes: FSDP gathers in each.
        missing = len(parts[0]) - len(pieces) if group else 0
        pieces += [parts[0][0][:1]] * missing
        shares += [0.0] * missing
        results = []
        for number, (piece, share) in enumerate(zip(pieces, shares, strict=True)):
            last = number == len(pieces) - 1
            with nullcontext() if last else _without_exchange(loss_module):
                with context():
                    losses = loss_module(piece)
                names = terms if terms is not None else _loss_names(losses)
                loss = sum(losses[name].float() for name in names)
                (loss * share).backward()
            results.append(losses.detach())
        if group:
            for parameter in loss_module.parameters():
                if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
                    reduce_in_place(parameter.grad, group)
    finally:
        if normalize:
            inner.normalize_advantage = True
    combined = _combined(results, shares)
    if group:
        for name, value in combined.items():
            op = dist.ReduceOp.MAX if name == "max_ratio" else dist.ReduceOp.SUM
            reduce_in_place(value, group, op)
    return combined


def _without_exchange(loss_module: nn.Module) -> AbstractContextManager[Any]:
    if isinstance(loss_module, DistributedDataParallel):
        return loss_module.no_sync()
    return nullcontext()


def _rows(loss: Any, piece: TensorDictBase) -> Tensor | int:
    mask = row_mask(loss, piece)
    return piece.numel() if mask is None else mask.sum()


def _loss_names(losses: TensorDictBase) -> list[str]:
    return [name for name in losses.keys() if name.startswith(LOSS_PREFIX)]  # noqa: SIM118


def _with_normalized_advantage(loss: Any, batch: TensorDictBase) -> TensorDictBase:
    """The batch with the advantages that the loss would compute from all of it."""
    key = loss.tensor_keys.advantage
    advantage = loss._maybe_normalize_advantage(batch.get(key), batch, update_norm=False)
    return batch.copy().set(key, advantage)


def _combined(results: list[TensorDictBase], shares: list[float]) -> TensorDictBase:
    combined = TensorDict()
    for name, first in results[0].items():
        values = [result[name] for result in results]
        if name == "max_ratio":
            combined[name] = torch.stack(values).max()
        else:
            terms = [v * share for v, share in zip(values, shares, strict=True) if share]
            combined[name] = sum(terms, torch.zeros_like(first))  # no row's may be NaN
    return combined
