"""Minibatches with as many decisions from successful as from failed trajectories."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import torch
from tensordict import NestedKey, TensorDictBase, is_tensor_collection, lazy_stack
from torchrl.data import SamplerWithoutReplacement
from torchrl.data.replay_buffers.storages import Storage

from rftf_torchrl.files import whole_file
from rftf_torchrl.functional.balance import OutcomePools, find_mixed_trajectory, outcome_pools
from rftf_torchrl.keys import TASK_ID, TRAJECTORY, TRAJECTORY_SUCCESS, nested_keys
from rftf_torchrl.samplers._epochs import BalancedEpochs

_STATE_FILE = "balanced_trajectory_sampler.pt"


class BalancedTrajectorySampler(SamplerWithoutReplacement):
    r"""Samples as many decisions from successful as from failed trajectories, task by task.

    The rule, for a storage of N decisions:

    - **Task share first.** A task fills minibatches in proportion to its number of decisions (up
      to about one pair, see :func:`~rftf_torchrl.spread_evenly`).
    - **Halves inside.** A task with both outcomes contributes pairs of one decision from a
      successful and one from a failed trajectory. With an even batch size no pair is cut, so
      every full minibatch is balanced exactly, in each such task; with an odd one the extra
      decision alternates between the outcomes. Each outcome is drawn in a shuffled order and
      shuffled again when exhausted: in one epoch no decision of a (task, outcome) is drawn twice
      before all the others were drawn once.
    - **One outcome only.** Such a task has no counterpart to balance against: each of its
      decisions is visited once per epoch, so that the rare ones among them are not repeated.
      ``task_key=None`` balances over all tasks at once instead.
    - **An epoch** with ``"total"`` has N draws, as many minibatches as without balance; the pass
      over the larger outcome continues in the next epoch. With ``"larger"`` it visits each
      decision of the larger outcome of each task exactly once and reuses the smaller (up to 2N
      draws). Then ``ran_out`` is ``True`` and ``for batch in buffer`` ends. When N is odd, the
      draw that is left is the last of the epoch, from a success and a failure in turns.

    If no task has both outcomes, sampling is uniform without replacement, with a warning, once.

    Writing to the buffer starts a new epoch over the new content. Writes that bypass it
    (``buffer["key"] = ...``) are not seen: call ``buffer.mark_update(index)`` after them.

    Source: the sample balance that RFTF names (Shu, Lin, Wang, arXiv 2505.19767); the rule is
    ours, the paper does not define it.

    Args:
        success_key: bool, [N, 1] or [N], the outcome of the trajectory of each decision.
        trajectory_key: integer, [N, 1] or [N]. Used only to check that each trajectory has one
            outcome, so ids must be unique in the storage. ``None`` skips the check.
        task_key: integer, [N, 1] or [N]. ``None`` treats all decisions as one task.

    Keyword Args:
        epoch: ``"total"`` or ``"larger"``.
        drop_last: drops the last minibatch of an epoch if it is incomplete.
        shuffle: ``False`` walks every (task, outcome) in storage order.
        seed: seed of the sampler's own generator, whose state is part of ``state_dict``;
            ``None`` draws a seed from torch's global generator. A generator that was passed to
            the replay buffer is used instead of it.

    Raises:
        ValueError: at construction if ``epoch`` is unknown; when sampling if the storage is not
            one-dimensional, a key does not hold one number per decision or a trajectory has both
            outcomes.
        KeyError: when sampling, if a key is not in the storage.
        TypeError: when sampling, if the outcome is not bool or the storage holds no tensordict.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
        >>> from rftf_torchrl import BalancedTrajectorySampler
        >>> decisions = TensorDict(
        ...     {
        ...         "trajectory_success": torch.tensor([[True]] * 2 + [[False]] * 6),
        ...         ("collector", "traj_ids"): torch.tensor([0, 0, 1, 1, 1, 2, 2, 2]),
        ...         "task_id": torch.zeros(8, 1, dtype=torch.int64),
        ...     },
        ...     [8],
        ... )
        >>> buffer = TensorDictReplayBuffer(
        ...     storage=LazyTensorStorage(8),
        ...     sampler=BalancedTrajectorySampler(seed=0),
        ...     batch_size=4,
        ... )
        >>> _ = buffer.extend(decisions)
        >>> [int(batch["trajectory_success"].sum()) for batch in buffer]
        [2, 2]
    """

    @nested_keys
    def __init__(
        self,
        success_key: NestedKey = TRAJECTORY_SUCCESS,
        trajectory_key: NestedKey | None = TRAJECTORY,
        task_key: NestedKey | None = TASK_ID,
        *,
        epoch: Literal["total", "larger"] = "total",
        drop_last: bool = False,
        shuffle: bool = True,
        seed: int | None = None,
    ):
        if epoch not in ("total", "larger"):
            raise ValueError(f"epoch is {epoch!r}; expected 'total' or 'larger'.")
        super().__init__(drop_last=drop_last, shuffle=shuffle)
        self.success_key = success_key
        self.trajectory_key = trajectory_key
        self.task_key = task_key
        self.epoch = epoch
        if seed is None:
            seed = int(torch.randint(2**62, ()))
        self._generator = torch.Generator().manual_seed(seed)
        self._sample_list: torch.Tensor | None
        self._epochs: BalancedEpochs | None = None
        self._epoch_number = 0
        self._changed = False
        self._warned = False

    def sample(self, storage: Storage, batch_size: int) -> tuple[torch.Tensor, dict[str, Any]]:
        if self._changed or len(storage) != self.len_storage:
            self._changed = False
            self._epochs = None
            self._sample_list = None
        return cast(tuple[torch.Tensor, dict[str, Any]], super().sample(storage, batch_size))

    def extend(self, index: torch.Tensor) -> None:
        self._changed = True

    def add(self, index: int) -> None:
        self._changed = True

    def mark_update(self, index: int | torch.Tensor, *, storage: Storage | None = None) -> None:
        self._changed = True

    def _get_sample_list(self, storage: Storage | None, len_storage: int, batch_size: int) -> None:
        device = None if self._sample_list is None else self._sample_list.device
        if self._epochs is None:
            decisions = self._decisions(storage)
            self._epochs = BalancedEpochs(self._pools(decisions), self.epoch, self.shuffle)
            device = decisions.get(self.success_key).device
        generator = self._generator if self._rng is None else self._rng
        self._sample_list = self._epochs.plan(self._epoch_number, generator).to(device)
        self._epoch_number += 1
        draws = self._sample_list.numel()
        self._remaining_batches = draws // batch_size if self.drop_last else -(draws // -batch_size)

    def _decisions(self, storage: Storage) -> TensorDictBase:
        if storage.ndim != 1:
            raise ValueError(
                f"the storage has {storage.ndim} dimensions; expected single decisions [N]. Build "
                "it with ndim=1 and flatten batches before extend."
            )
        decisions = storage[:]
        if isinstance(decisions, list) and all(map(is_tensor_collection, decisions)):
            decisions = lazy_stack(decisions)  # of a ListStorage; columns are stacked as read
        if not isinstance(decisions, TensorDictBase):
            held = decisions[0] if isinstance(decisions, list) else decisions
            raise TypeError(
                f"the storage holds a {type(held).__name__}; expected tensordicts, one per "
                "decision."
            )
        return decisions

    def _pools(self, decisions: TensorDictBase) -> list[OutcomePools]:
        success = self._read(decisions, self.success_key, "success_key")
        if self.trajectory_key is not None:
            trajectory = self._read(decisions, self.trajectory_key, "trajectory_key")
            mixed = find_mixed_trajectory(success, trajectory)
            if mixed is not None:
                raise ValueError(
                    f"{self.success_key!r} is both True and False in trajectory {mixed} of "
                    f"{self.trajectory_key!r}; expected one outcome per trajectory. Write the "
                    "outcome to every step once the trajectory is complete, or pass "
                    "trajectory_key=None if ids repeat in the storage."
                )
        task = (
            self._read(decisions, self.task_key, "task_key") if self.task_key is not None else None
        )
        pools = outcome_pools(success, task)
        if any(pool.mixed for pool in pools):
            return pools
        if not self._warned:
            self._warned = True
            successes = int(success.sum())
            warnings.warn(
                "no task has both successful and failed trajectories in the storage "
                f"({successes} of {success.numel()} decisions are from successful ones): sampling "
                "uniformly without replacement, without balance, until one has.",
                stacklevel=2,
            )
        everything = torch.arange(success.numel())
        return [OutcomePools(everything, everything[:0])]

    def _read(self, decisions: TensorDictBase, key: NestedKey, argument: str) -> torch.Tensor:
        column: torch.Tensor | None = decisions.get(key, None)
        if column is None:
            available = sorted(map(str, decisions.keys(True, True)))
            raise KeyError(
                f"{key!r} is not in the storage, which has {available}. Write it to every decision "
                "before extending the buffer (rftf_torchrl.label_outcomes writes the "
                "outcome, once the trajectories are complete), or name another key with "
                f"{argument}=."
            )
        if column.shape not in ((len(decisions),), (len(decisions), 1)):
            raise ValueError(
                f"{key!r} has shape {list(column.shape)} in the storage; expected "
                f"[{len(decisions)}, 1] or [{len(decisions)}], one number per decision."
            )
        if argument == "success_key" and column.dtype != torch.bool:
            raise TypeError(
                f"{key!r} has dtype {column.dtype} in the storage; expected torch.bool."
            )
        return column.detach().reshape(-1).cpu()

    def _empty(self) -> None:
        super()._empty()
        self._epochs = None

    def state_dict(self) -> dict[str, Any]:
        order, layout = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, 2, dtype=torch.int64)
        if self._epochs is not None:
            order, layout = self._epochs.state()
        return OrderedDict(
            super().state_dict(),
            _order=order,
            _layout=layout,
            _epoch_number=self._epoch_number,
            _changed=self._changed,
            _generator=self._generator.get_state(),
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where the saved sampler was; call it after the storage has its content."""
        super().load_state_dict(state_dict)
        self._epoch_number = int(state_dict["_epoch_number"])
        self._changed = bool(state_dict["_changed"])
        self._generator.set_state(state_dict["_generator"].clone())
        self._epochs = None
        if state_dict["_layout"].numel():
            self._epochs = BalancedEpochs([], self.epoch, self.shuffle)
            self._epochs.load_state(state_dict["_order"], state_dict["_layout"])

    def dumps(self, path: str | Path) -> None:
        path = Path(path)
        path.mkdir(exist_ok=True)
        with whole_file(path / _STATE_FILE) as hidden:
            content = BytesIO()
            torch.save(self.state_dict(), content)  # into a file it would hide a full disk
            hidden.write_bytes(content.getvalue())

    def loads(self, path: str | Path) -> None:
        self.load_state_dict(torch.load(Path(path) / _STATE_FILE))

    def __repr__(self) -> str:
        left = 0 if self._sample_list is None else len(self._sample_list)
        return f"{type(self).__name__}(epoch={self.epoch!r}, {left} draws left in this epoch)"
