"""What the processes that train one policy compute together, each its share of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """The processes of a ``torch.distributed`` group; without one, a process alone.

    All of them have the same data, each computes with its share of the rows, and all end with the
    same numbers, which are those of one process but for the order of the additions.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
        patient: group of the messages for which the others may wait long, as while the first one
            plays episodes.

    Example:
        >>> processes = Processes()
        >>> processes.rows(5), processes.tell("what the first one says")
        (slice(0, 5, None), 'what the first one says')
    """

    rank: int = 0
    world: int = 1
    patient: dist.ProcessGroup | None = None

    @classmethod
    def here(cls, patient: dist.ProcessGroup | None = None) -> Processes:
        """Those that this process is one of."""
        if not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), patient)

    def rows(self, count: int) -> slice:
        """This process's share of so many rows: sizes differ by one at most."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def tell(self, message: Any = None) -> Any:
        """The first process's message, in all of them; a tensordict travels as one tensor.

        Args:
            message: what the first process says, a tensordict or anything that can be pickled; the
                others' is not looked at.
        """
        if self.world == 1:
            return message
        is_data = isinstance(message, TensorDictBase)
        told = [TensorDictBase if is_data else message]
        dist.broadcast_object_list(told, src=0, group=self.patient)
        if told[0] is not TensorDictBase:
            return told[0]
        data = message if is_data else TensorDict()
        received = data.broadcast(src=0, group=self.patient)
        return message if is_data else received.unlock_()

    def in_shares(
        self, function: Callable[[TensorDictBase], TensorDictBase], data: TensorDictBase
    ) -> TensorDictBase:
        """Apply a function to complete trajectories, each process to some, and gather what it set.

        Args:
            function: writes entries into decisions [n] and keeps their number and order.
            data: complete trajectories one after another, decisions [N], the same in all processes.

        Returns:
            Decisions [N] with the entries of all.
        """
        if self.world == 1:
            return function(data)
        ends = data["next", "done"].reshape(-1).nonzero().squeeze(-1) + 1
        targets = torch.arange(self.world + 1, device=ends.device) * len(data) / self.world
        nearest = (ends.unsqueeze(0) - targets[1:-1].unsqueeze(1)).abs().argmin(1)
        cuts = [0, *ends[nearest].tolist(), len(data)]
        spans = [slice(*span) for span in zip(cuts[:-1], cuts[1:], strict=True)]
        mine = spans[self.rank]
        whole = int(ends[0])  # a process without a share plays along with the first trajectory
        share = data[mine] if mine.start < mine.stop else data[:whole]
        before = dict(share.items(True, True))
        found = function(share)
        written = [key for key, value in found.items(True, True) if before.get(key) is not value]
        parts = found.select(*written).all_gather()
        pieces = [
            data[span].update(part)
            for span, part in zip(spans, parts, strict=True)
            if span.start < span.stop
        ]
        return torch.cat(pieces)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over the processes, in place."""
        if self.world > 1:
            gradients = [p.grad for p in parameters if p.grad is not None]
            for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
                work.wait()

    def combined(self, losses: TensorDictBase, maxima: Iterable[str]) -> TensorDictBase:
        """Sum numbers over the processes, in place; of some the maximum."""
        if self.world > 1:
            for name, value in losses.items():
                op = dist.ReduceOp.MAX if name in maxima else dist.ReduceOp.SUM
                dist.all_reduce(value, op)
        return losses
