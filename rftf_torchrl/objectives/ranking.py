"""The loss that trains the value model by temporal order alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchrl.objectives.common import LossModule

from rftf_torchrl import keys
from rftf_torchrl.functional.metrics import pairwise_accuracy
from rftf_torchrl.functional.ranking import temporal_ranking_loss
from rftf_torchrl.nets.entries import written_value
from rftf_torchrl.objectives.loss_keys import LossKeys, row_mask
from rftf_torchrl.values.temporal_value import TemporalValueModel


class TemporalRankingLoss(LossKeys, LossModule):
    r"""Ranks frames of successful episodes by time.

    .. math::
        L = -\frac{1}{\binom{n}{2}} \sum_{i<j} \log \sigma\big( V(s_j, l) - V(s_i, l) \big)

    n forward passes give all pairs. With ``pair_distance`` k, the target of a pair is
    :math:`\sigma(k\,(u_j - u_i))` instead of 1, where u is the share of the episode before a frame.
    Then V should rise evenly by k from the first frame to the last, instead of as far as possible.

    Two further terms, ours, use negatives:

    * ``wrong_instruction``: the last frame of a success scores higher under its own instruction
      than under that of another task of the batch;
    * ``failures``: the last frame of a success scores higher than any frame of a failed episode
      of the same task.

    Rows whose ``"trajectory_success"`` is False never enter the ranking term: time order is no
    progress there. There is no term for reversed clips, or for rewound ones, which turn round in
    their middle. This value model scores single frames, so demanding that a clip loses value while
    it is played backwards is the ranking term again.

    No action is read. Each term is a mean over pairs, and how many there are depends on the data,
    so that the gradients of parts of a batch do not add up to that of the whole.

    Source: Shu, Lin, Wang 2025, "RFTF", arXiv 2505.19767 (the first term).

    Args:
        value_model: a :class:`TemporalValueModel` (its raw score is trained), or any TensorDict
            module that writes ``"temporal_value"``, or ``"state_value"`` as TorchRL's
            ``ValueOperator``, float [*B, 1].
        wrong_instruction: weight of the wrong-instruction term; 0 leaves it out.
        failures: weight of the failure term; 0 leaves it out.
        pair_distance: how much V should rise within an episode, e.g. 10; 0 for order alone.

    Raises:
        ValueError: if a weight or the distance is negative; on use, if the module writes no value,
            or reads no instruction that could be wrong.

    Examples:
        >>> from torch import nn
        >>> model = TemporalValueModel(nn.Linear(2, 1), in_keys=["state"])
        >>> loss = TemporalRankingLoss(model)
        >>> out = loss(TensorDict({"state": torch.zeros(4, 3, 2)}, [4, 3]))
        >>> round(out["loss_ranking"].item(), 4)  # log(2): an untrained guess
        0.6931
    """

    @dataclass
    class _AcceptedKeys:
        """Keys of the data.

        Attributes:
            temporal_value: where a module other than TemporalValueModel writes its score.
            tokens: instruction tokens, int64 [B, n, L]; of a TemporalValueModel, its own.
            token_mask: mask of the tokens, bool [B, n, L].
            frame_mask: which frames of the row exist, bool [B, n]; absent = all.
            trajectory_success: whether the row is a success, bool [B, n, 1]; absent = all.
            progress: share of the episode before the frame, float [B, n, 1]; read with a pair
                distance only.
            task_id: task of the row, int64 [B, n, 1], for both terms; absent = rows with equal
                tokens share one.
        """

        temporal_value: NestedKey = keys.TEMPORAL_VALUE
        tokens: NestedKey = keys.TOKENS
        token_mask: NestedKey = keys.TOKEN_MASK
        frame_mask: NestedKey = "frame_mask"
        trajectory_success: NestedKey = keys.TRAJECTORY_SUCCESS
        progress: NestedKey = "frame_progress"
        task_id: NestedKey = keys.TASK_ID

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    reduction = "mean over pairs"

    def __init__(
        self,
        value_model: TensorDictModuleBase,
        *,
        wrong_instruction: float = 0.0,
        failures: float = 0.0,
        pair_distance: float = 0.0,
    ) -> None:
        super().__init__()
        for name, weight in (("wrong_instruction", wrong_instruction), ("failures", failures)):
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name} is a weight and must not be negative, got {weight}.")
        if not 0 <= pair_distance < math.inf:
            raise ValueError(f"pair_distance must not be negative, got {pair_distance}.")
        self.value_model = value_model
        self.wrong_instruction = float(wrong_instruction)
        self.failures = float(failures)
        self.pair_distance = float(pair_distance)
        if isinstance(value_model, TemporalValueModel):
            tokens = value_model.tokens_key
            mask = tokens if isinstance(tokens, str) else (*tokens[:-1], "mask")
            self.set_keys(tokens=tokens)
            if mask != tokens and mask in map(unravel_key, value_model.in_keys):
                self.set_keys(token_mask=mask)

    @property
    def functional(self) -> bool:
        """The value model keeps its own weights."""
        return False

    @property
    def in_keys(self) -> list[NestedKey]:
        """What has to be there."""
        needed = [self.tensor_keys.tokens] if self.wrong_instruction else []
        needed += [self.tensor_keys.progress] if self.pair_distance else []
        return list(dict.fromkeys([*self.value_model.in_keys, *needed]))

    @property
    def _dispatched_keys(self) -> list[NestedKey]:
        """What keyword arguments may name."""
        names = self.tensor_keys
        optional = [names.tokens, names.token_mask, names.frame_mask]
        optional += [names.trajectory_success, names.task_id]
        return list(dict.fromkeys([*self.in_keys, *optional]))

    def _written(self) -> list[str]:
        terms = ["loss_wrong_instruction"] if self.wrong_instruction else []
        terms += ["loss_failures"] if self.failures else []
        return ["loss_ranking", "pairwise_accuracy", *terms]

    @dispatch(source="_dispatched_keys")
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes the loss.

        Args:
            tensordict: batch [B, n]: B clips of n frames each, in time order.

        Returns:
            ``"loss_ranking"``, ``"pairwise_accuracy"`` (share of pairs in the right order) and,
            by weight, ``"loss_wrong_instruction"`` and ``"loss_failures"``, all scalars; the
            total loss is the sum of the ``loss_`` entries. A term without any pair is 0, an
            accuracy without any pair is NaN.

        Raises:
            ValueError: if the batch is not [B, n].
            KeyError: if the tokens or the progress for an enabled term are missing.
        """
        entries = [tensordict.get(key, None) for key in self.value_model.in_keys]
        dims = tensordict.batch_dims
        if dims > 2 and all(entry is None or entry.ndim == dims for entry in entries):
            # a call by keywords takes all dimensions that the entries share
            tensordict = tensordict.copy()
            tensordict.batch_size = tensordict.batch_size[:2]
        if tensordict.batch_dims != 2:
            raise ValueError(
                "tensordict must have batch size [clips, frames], got "
                f"{tuple(tensordict.batch_size)}."
            )
        mask = tensordict.get(self.tensor_keys.frame_mask, None)
        real = row_mask(self, tensordict)
        if real is not None:
            real = real.reshape(tensordict.batch_size)
            mask = real if mask is None else mask & real
        if mask is not None:
            tensordict = self._padded_by_numbers(tensordict, mask)
        values = self._score(tensordict)
        if mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        last = _last_true(mask)
        rows = torch.arange(values.shape[0], device=values.device)
        success = tensordict.get(self.tensor_keys.trajectory_success, None)
        success = mask.any(-1) if success is None else success[rows, last, 0] & mask.any(-1)
        ranked = mask & success.unsqueeze(-1)
        loss, accuracy = _ranking(values, ranked, self._places(tensordict))
        out = TensorDict({"loss_ranking": loss, "pairwise_accuracy": accuracy})
        ends = values[rows, last]
        if self.wrong_instruction:
            frames = tensordict.select(
                *self.value_model.in_keys,
                self.tensor_keys.tokens,
                self.tensor_keys.token_mask,
                self.tensor_keys.task_id,
                strict=False,
            )
            chosen, counted = _chosen(success)
            term = self._wrong_instruction(frames[rows, last][chosen], ends[chosen], counted)
            out["loss_wrong_instruction"] = self.wrong_instruction * term
        if self.failures:
            failed = mask & ~success.unsqueeze(-1)
            pairs = success[:, None] & self._same_task(tensordict, rows, last)
            pairs = (pairs.unsqueeze(-1) & failed.unsqueeze(0)).flatten()
            gap = (ends[:, None, None] - values.unsqueeze(0)).flatten()
            chosen, counted = _chosen(pairs)
            term = _mean(-logsigmoid(gap[chosen]), counted) if len(chosen) else 0 * values.sum()
            out["loss_failures"] = self.failures * term
        return out

    def _places(self, tensordict: TensorDictBase) -> Tensor | None:
        if not self.pair_distance:
            return None
        progress: Tensor | None = tensordict.get(self.tensor_keys.progress, None)
        if progress is None:
            raise KeyError(
                "pair_distance needs the share of the episode before each frame at "
                f"{self.tensor_keys.progress!r}: add it, as sample_clips does, or set "
                "pair_distance=0."
            )
        return self.pair_distance * progress.squeeze(-1)

    def _padded_by_numbers(self, tensordict: TensorDictBase, mask: Tensor) -> TensorDictBase:
        """Frames that do not exist without NaN: 0 * NaN is NaN, in gradients too."""
        out = tensordict.copy()
        for key in self.value_model.in_keys:
            value = out.get(key, None)
            if value is not None and value.is_floating_point():
                exists = mask.reshape(*mask.shape, *[1] * (value.ndim - mask.ndim))
                out.set(key, torch.where(exists, value, value.nan_to_num(0.0, 0.0, 0.0)))
        return out

    def _score(self, tensordict: TensorDictBase) -> Tensor:
        if isinstance(self.value_model, TemporalValueModel):
            return self.value_model.raw(tensordict).squeeze(-1)
        inputs = tensordict.select(*self.value_model.in_keys)
        written = written_value(self.value_model, self.tensor_keys.temporal_value)
        value: Tensor = self.value_model(inputs).get(written)
        return value.squeeze(-1)

    def _refuse_blind(self) -> None:
        key = self.tensor_keys.tokens
        parents = [key] if isinstance(key, str) else [key, *(key[:n] for n in range(1, len(key)))]
        if not {*map(unravel_key, parents)} & {*map(unravel_key, self.value_model.in_keys)}:
            raise ValueError(
                f"wrong_instruction needs a value model that reads the tokens at {key!r}, and this "
                f"one reads {list(self.value_model.in_keys)}: name its own by "
                "set_keys(tokens=..., token_mask=...), or leave the term out."
            )

    def _tokens(self, tensordict: TensorDictBase) -> Tensor:
        tokens: Tensor | None = tensordict.get(self.tensor_keys.tokens, None)
        if tokens is None:
            raise KeyError(
                f"this loss term needs the instruction tokens at {self.tensor_keys.tokens!r}: add "
                "them, or set its weight to 0."
            )
        return tokens

    def _wrong_instruction(self, frames: TensorDictBase, ends: Tensor, counted: Tensor) -> Tensor:
        self._refuse_blind()
        tokens = self._tokens(frames)
        different = (tokens.unsqueeze(1) != tokens.unsqueeze(0)).any(-1) & counted
        task = frames.get(self.tensor_keys.task_id, None)
        if task is not None:  # other words for the same task are right, too
            different = different & (task.unsqueeze(1) != task.unsqueeze(0)).any(-1)
        rows, counted = _chosen(different.any(-1) & counted)
        if not len(rows):
            return 0 * ends.sum()
        other = _next_true(different)[rows]
        swapped = frames[rows].copy()
        swapped.set(self.tensor_keys.tokens, tokens[other])
        token_mask = frames.get(self.tensor_keys.token_mask, None)
        if token_mask is not None:
            swapped.set(self.tensor_keys.token_mask, token_mask[other])
        return _mean(-logsigmoid(ends[rows] - self._score(swapped)), counted)

    def _same_task(self, tensordict: TensorDictBase, rows: Tensor, last: Tensor) -> Tensor:
        task: Tensor | None = tensordict.get(self.tensor_keys.task_id, None)
        if task is None:
            task = self._tokens(tensordict)
        task = task[rows, last]
        return (task.unsqueeze(1) == task.unsqueeze(0)).all(-1)


def _ranking(values: Tensor, ranked: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor]:
    """Loss and accuracy; where no row has a pair, 0 and NaN."""
    some = (ranked.sum(-1) > 1).any()
    if not torch.compiler.is_compiling() and not some:
        return 0 * values.sum(), values.new_tensor(math.nan)
    accuracy = pairwise_accuracy(values.detach(), ranked)
    return temporal_ranking_loss(values, ranked, places=places), accuracy.where(some, math.nan)


def _chosen(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of what counts, and True for each.

    Under ``torch.compile``, where no shape depends on a number, all indices and the mask.
    """
    if torch.compiler.is_compiling():
        return torch.arange(len(mask), device=mask.device), mask
    index = mask.nonzero().squeeze(-1)
    return index, torch.ones_like(index, dtype=torch.bool)


def _mean(each: Tensor, counted: Tensor) -> Tensor:
    """The mean of what counts."""
    if torch.compiler.is_compiling():
        total = torch.where(counted, each, torch.zeros_like(each)).sum()
        return total / counted.sum().clamp_min(1)
    return each.mean()


def _last_true(mask: Tensor) -> Tensor:
    """Index of the last True of each row, 0 where there is none."""
    index = torch.arange(mask.shape[-1], device=mask.device)
    return (mask * index).max(-1).values


def _next_true(mask: Tensor) -> Tensor:
    """For each row i of a square mask, the first True after column i, round the corner."""
    count = mask.shape[0]
    index = torch.arange(count, device=mask.device)
    columns = (index[:, None] + index[None, :]) % count
    step = mask.gather(1, columns).to(torch.uint8).argmax(1)
    return (index + step) % count
