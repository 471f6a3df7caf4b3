"""Success plus a dense reward, which a form makes from values that the data hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.transforms import (
    FrameSkipTransform,
    MultiAction,
    TerminateTransform,
    Transform,
)

from rftf_torchrl.keys import (
    BEST_VALUE,
    DENSE_REWARD,
    OUTCOME_REWARD,
    REWARD,
    SUCCESS,
    TEMPORAL_VALUE,
    TRAJECTORY,
    nested_keys,
)
from rftf_torchrl.nets.entries import NO_COMPACT_OBS, required
from rftf_torchrl.rewards.forms import keeps_failures, reward_form
from rftf_torchrl.rewards.places import (
    environment_transforms,
    later_transforms,
    next_data,
    trajectory_lengths,
)
from rftf_torchrl.settings import Finite, check_value

_ROUNDING = 1e-4
"""Of values of the same state, evaluated in other batches."""


class DenseReward(Transform):
    r"""Rewards success, and a form's reward from the values that :class:`StateValues` wrote.

    .. math::
        r_t = w_{outcome} \, success_t + w_{dense} \, form(V(s_t), V(s_{t+1}), \ldots)_t

    It serves an environment, a collector's ``postproc`` and a replay buffer, with equal rewards.
    Only a form that reads the largest value so far (``best``, ``next_best``) needs more. An
    environment carries that value in the tensordict. In a batch it is read where it is stored, and
    else computed; then trajectories have to be complete and one after another. The batches are so
    that a collector with ``trajs_per_batch`` and ``traj_format="cat"`` yields
    (``for data in collector: reward(data)``), and from then on the steps may be shuffled. As
    ``postproc`` TorchRL calls it on pieces of trajectories, of which it refuses those that do not
    end an episode. Remove ``best_key`` at the root before values of another model are paid.

    The reward that the environment wrote is replaced. The two parts of the reward are observations
    to the environment, as the sums of TorchRL's ``RewardSum`` are, zero after a reset: it has one
    reward key. A success signal that stays on after the first success is rewarded at each step: end
    the episode at success.

    Args:
        form: a name, ``"module:function"`` or a function, see :mod:`rftf_torchrl.rewards.forms`.
            None: no dense reward.
        dense_weight: w_dense.
        outcome_weight: w_outcome.
        success_key: bool [*B, 1], read under ``"next"``.
        terminated_key: bool [*B, 1], read under ``"next"``.
        truncated_key: bool [*B, 1], read under ``"next"`` by forms that name it.
        trajectory_key: int64 [*B], read for forms of the largest value so far, with ``"done"``
            beside ``terminated_key``.
        reward_key: float32 [*B, 1], written under ``"next"``: the weighted sum.
        outcome_key: float32 [*B, 1], written under ``"next"``: success as 0 or 1.
        dense_key: float32 [*B, 1], written under ``"next"``: the form's reward, unweighted.
        value_key: float32 [*B, 1], read at the root and under ``"next"``.
        best_key: float32 [*B, 1], the largest value so far, at the root and under ``"next"``; for
            forms that name it.
        share_key: float32 [*B, 1], read at the root: the share of ``dense_weight`` that the step is
            paid with, such as that of :func:`label_failure_rates`. None pays all of it.
        options: of the form.

    Raises:
        ValueError: there is no such form, it does not have an option or refuses it, or a failure
            could be worth as much as a success. On use: an entry has the wrong shape, trajectories
            are not complete and one after another while no largest value is stored, one that is
            stored is of other values, or another transform would make the reward wrong. Three do:
            TorchRL's ``MultiAction``, which skips the other transforms when an episode ends inside
            a chunk, where the success reward is due; a later one that changes ``terminated``; and
            a later ``FrameSkipTransform`` with a form of the largest value.
        KeyError: on use, an entry is missing.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> column = lambda *values: torch.tensor(values)[:, None]
        >>> data = TensorDict({"temporal_value": column(0.0, 0.5)}, [2])
        >>> data["next", "temporal_value"] = column(0.5, 1.0)
        >>> data["next", "success"] = data["next", "terminated"] = column(False, True)
        >>> DenseReward("difference", gamma=1.0)(data)["next", "reward"].squeeze(-1).tolist()
        [0.5, 0.5]
    """

    @nested_keys
    def __init__(
        self,
        form: str | Callable[..., Tensor] | None = "difference",
        *,
        dense_weight: float = 1.0,
        outcome_weight: float = 1.0,
        success_key: NestedKey = SUCCESS,
        terminated_key: NestedKey = "terminated",
        truncated_key: NestedKey = "truncated",
        trajectory_key: NestedKey = TRAJECTORY,
        reward_key: NestedKey = REWARD,
        outcome_key: NestedKey = OUTCOME_REWARD,
        dense_key: NestedKey = DENSE_REWARD,
        value_key: NestedKey = TEMPORAL_VALUE,
        best_key: NestedKey = BEST_VALUE,
        share_key: NestedKey | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_keys=[success_key], out_keys=[reward_key, outcome_key, dense_key])
        if form is None and options:
            raise ValueError(f"options without a form of the reward: {', '.join(options)}.")
        self.form: Callable[..., Tensor] | None = None
        self.columns: tuple[str, ...] = ()
        if form is not None:
            self.form, self.columns = reward_form(form, options)
        check_value("dense_weight", dense_weight, Finite)
        check_value("outcome_weight", outcome_weight, Finite)
        if self._keeps_failures and dense_weight and not dense_weight < outcome_weight:
            raise ValueError(
                f"with this form a failure earns up to dense_weight={dense_weight:g} and a success "
                f"at least outcome_weight={outcome_weight:g}: make dense_weight smaller, 0.5 for "
                "example."
            )
        self.dense_weight = float(dense_weight)
        self.outcome_weight = float(outcome_weight)
        self.success_key = success_key
        self.terminated_key = terminated_key
        self.truncated_key = truncated_key
        self.trajectory_key = trajectory_key
        self.reward_key = reward_key
        self.outcome_key = outcome_key
        self.dense_key = dense_key
        self.value_key = value_key
        self.best_key = best_key
        self.share_key = share_key

    @property
    def _keeps_failures(self) -> bool:
        return keeps_failures(self.columns)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write rewards to transitions of shape [*B] that hold values."""
        following = next_data(self, tensordict)
        self._write(tensordict, following)
        return tensordict.set("next", following)

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        return self.forward(next_tensordict)

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        if self._keeps_failures:
            best = self._values(tensordict_reset, self.value_key)
            reset, earlier = tensordict.get("_reset", None), tensordict.get(self.best_key, None)
            if reset is not None and earlier is not None:
                rows = reset.reshape(*best.shape[:-1], -1).any(-1, keepdim=True)
                best = torch.where(rows, best, earlier)
            tensordict_reset.set(self.best_key, best)
        zero = torch.zeros(*tensordict_reset.batch_size, 1, device=tensordict_reset.device)
        return tensordict_reset.set(self.outcome_key, zero).set(self.dense_key, zero.clone())

    def _reset_on_native_autoreset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return self._reset(tensordict, tensordict_reset)

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        if self._keeps_failures and self.best_key not in tensordict.keys(True):
            tensordict.set(self.best_key, self._values(tensordict, self.value_key))
        self._write(tensordict, next_tensordict, carried=True)
        return next_tensordict

    def transform_output_spec(self, output_spec: Composite) -> Composite:
        """Refuse an environment whose rewards would be wrong; then as in any transform."""
        if any(isinstance(other, MultiAction) for other in environment_transforms(self)):
            raise ValueError(
                "MultiAction skips the other transforms of its TransformedEnv when an episode "
                "ends inside a chunk, so the success reward would be lost. Wrap twice: "
                "TransformedEnv(TransformedEnv(env, MultiAction(...)), ValueReward(...), "
                "auto_unwrap=False); or use ValueReward as the collector's postproc."
            )
        for later in later_transforms(self):
            if isinstance(later, TerminateTransform) or self.terminated_key in later.out_keys:
                raise ValueError(
                    f"{type(later).__name__} changes {self.terminated_key!r} after the reward has "
                    "been given, so the value at such a termination would be taken for that of a "
                    "state that goes on. Put it before the reward: "
                    f"Compose({type(later).__name__}(...), ValueReward(...))."
                )
            if self._keeps_failures and isinstance(later, FrameSkipTransform):
                raise ValueError(
                    "FrameSkipTransform after this form of the reward would pay the largest value "
                    "of an episode again in each skipped step. Put it before the reward: "
                    "Compose(FrameSkipTransform(...), ValueReward(...))."
                )
        return super().transform_output_spec(output_spec)

    def transform_reward_spec(self, reward_spec: Composite) -> Composite:
        """Replace the reward's spec."""
        shape = (*reward_spec.shape, 1)
        reward_spec[self.reward_key] = Unbounded(shape=shape, device=reward_spec.device)
        return reward_spec

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Add the two parts of the reward."""
        shape, device = (*observation_spec.shape, 1), observation_spec.device
        observation_spec[self.outcome_key] = Bounded(0.0, 1.0, shape=shape, device=device)
        observation_spec[self.dense_key] = Unbounded(shape=shape, device=device)
        return self._with_best(observation_spec)

    def transform_state_spec(self, state_spec: Composite) -> Composite:
        """Add the largest value, so that batched environments hand it back to their workers."""
        return self._with_best(state_spec)

    def _with_best(self, spec: Composite) -> Composite:
        if self._keeps_failures:
            spec[self.best_key] = Unbounded(shape=(*spec.shape, 1), device=spec.device)
        return spec

    def _write(
        self, root: TensorDictBase, following: TensorDictBase, *, carried: bool = False
    ) -> None:
        """Write outcome, dense and total reward to ``following``, the data at t + 1.

        The largest value so far was ``carried`` here by an environment, or is that of a batch.
        """
        success = _flag(
            following,
            self.success_key,
            "Have the environment write it, or name another entry with success_key= (that of "
            f"torchrl's SuccessReward). {NO_COMPACT_OBS}",
        )
        terminated = _flag(
            following,
            self.terminated_key,
            "Without it every done would count as a termination and truncated episodes would lose "
            "V(s_{t+1}). Write it, or name another entry with terminated_key=.",
        )
        outcome = success.to(torch.float32)
        if success.dtype != torch.bool and bool(((outcome != 0) & (outcome != 1)).any()):
            raise ValueError(
                f"('next', {self.success_key!r}) must be true or false, or 0 or 1, got "
                f"{outcome[(outcome != 0) & (outcome != 1)][0].item():g}: success is no reward."
            )
        dense = torch.zeros_like(outcome)
        if self.form is not None:
            if self._keeps_failures and not carried:
                self._write_largest(root, following, terminated != 0)
            data = {"success": success.bool(), "terminated": terminated.bool()}
            dense = self._dense(self.form, root, following, data)
        following.set(self.outcome_key, outcome)
        following.set(self.dense_key, dense)
        paid = self.dense_weight * dense
        if self.share_key is not None and self.form is not None:
            paid = paid * self._share(root, paid.shape)
        following.set(self.reward_key, self.outcome_weight * outcome + paid)

    def _share(self, root: TensorDictBase, expected: torch.Size) -> Tensor:
        key = cast(NestedKey, self.share_key)
        share: Tensor = required(root, key, ", by which the dense reward is weighted.")
        if share.shape != expected:
            raise ValueError(
                f"{key!r} must have shape {tuple(expected)}, got {tuple(share.shape)}."
            )
        return share

    def _dense(
        self,
        form: Callable[..., Tensor],
        root: TensorDictBase,
        following: TensorDictBase,
        data: dict[str, Tensor],
    ) -> Tensor:
        if "values" in self.columns:
            data["values"] = self._values(root, self.value_key)
        if "next_values" in self.columns:
            data["next_values"] = self._values(following, ("next", self.value_key))
        if "truncated" in self.columns:
            advice = "The form reads it. Write it, or name another entry with truncated_key=."
            data["truncated"] = _flag(following, self.truncated_key, advice).bool()
        if self._keeps_failures:
            data["best"], data["next_best"] = self._largest(root, following)
        return form(**{column: data[column] for column in self.columns})

    def _values(self, data: TensorDictBase, name: NestedKey) -> Tensor:
        value: Tensor | None = data.get(self.value_key, None)
        if value is None:
            raise KeyError(
                f"{name!r} is missing. Write it first: Compose(StateValues(model), "
                "DenseReward(...)), or ValueReward."
            )
        expected = (*data.batch_size, 1)
        if value.shape != expected:
            raise ValueError(f"{name!r} must have shape {expected}, got {tuple(value.shape)}.")
        return value

    def _largest(self, root: TensorDictBase, following: TensorDictBase) -> tuple[Tensor, Tensor]:
        """The largest value up to s_t, and up to s_{t+1}, which is written."""
        best: Tensor = root.get(self.best_key)
        next_best = torch.maximum(best, self._values(following, ("next", self.value_key)))
        following.set(self.best_key, next_best)
        return best, next_best

    def _write_largest(
        self, root: TensorDictBase, following: TensorDictBase, terminated: Tensor
    ) -> None:
        """The largest value up to s_t, where none is stored that these values could have."""
        values = self._values(root, self.value_key)
        following_values = self._values(following, ("next", self.value_key))
        stored: Tensor | None = root.get(self.best_key, None)
        if stored is not None:
            after: Tensor | None = following.get(self.best_key, None)
            expected = torch.maximum(stored, following_values)
            low = (stored < values - _ROUNDING).any()
            if not low and (after is None or not ((after - expected).abs() > _ROUNDING).any()):
                return
        lengths = self._lengths(root)
        ends = self._ends(following, terminated)
        if not _complete(lengths, ends, values, following_values):
            other = "" if stored is None else f", and {self.best_key!r} is of other values"
            raise ValueError(
                f"trajectories are not complete{other}, and this form of the reward reads the "
                "largest value so far: apply it to the batches that a collector yields "
                "(trajs_per_batch, traj_format='cat') and not as its postproc, or in the "
                "environment."
            )
        largest = [piece.cummax(0).values for piece in values.reshape(-1).split(lengths)]
        best = torch.cat(largest).reshape(values.shape) if lengths else values.clone()
        root.set(self.best_key, best)

    def _ends(self, following: TensorDictBase, terminated: Tensor) -> Tensor | None:
        """Where episodes end, bool [N]; None where the data do not say."""
        found = [following.get(_beside(self.terminated_key, "done"), None)]
        found.append(following.get(self.truncated_key, None))
        known = [flag.reshape(-1) != 0 for flag in found if flag is not None]
        return torch.stack([*known, terminated.reshape(-1)]).any(0) if known else None

    def _lengths(self, root: TensorDictBase) -> list[int]:
        """Steps of each trajectory; each trajectory is in one piece."""
        why = (
            ", and this form of the reward reads the largest value of a trajectory so far. "
            "Collectors write it (trajs_per_batch)."
        )
        trajectory = required(root, self.trajectory_key, why)
        why = "this form of the reward reads the largest value so far"
        return trajectory_lengths(trajectory, self.trajectory_key, why)


def _complete(lengths: list[int], ends: Tensor | None, values: Tensor, following: Tensor) -> bool:
    """Whether each piece ends an episode, and none before; unknown ends count as such."""
    if ends is None or not lengths:
        return True
    last = torch.zeros_like(ends)
    last[torch.tensor(lengths, device=ends.device).cumsum(0) - 1] = True
    inside = ~last[:-1]
    before, after = following.reshape(-1)[:-1][inside], values.reshape(-1)[1:][inside]
    return bool((ends == last).all()) and torch.allclose(before, after, atol=_ROUNDING)


def _beside(key: NestedKey, name: str) -> NestedKey:
    return name if isinstance(key, str) else (*key[:-1], name)


def _flag(following: TensorDictBase, key: NestedKey, advice: str) -> Tensor:
    flag: Tensor | None = following.get(key, None)
    if flag is None:
        raise KeyError(f"('next', {key!r}) is missing. {advice}")
    expected = (*following.batch_size, 1)
    if flag.shape != expected:
        raise ValueError(f"('next', {key!r}) must have shape {expected}, got {tuple(flag.shape)}.")
    return flag
