"""The RFTF reward: sparse success plus a dense reward from a temporal value model."""

from __future__ import annotations

from typing import Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.transforms import MultiAction, Transform

from rftf_torchrl.functional.shaping import potential_shaping
from rftf_torchrl.keys import DENSE_REWARD, OUTCOME_REWARD, REWARD, SUCCESS, TEMPORAL_VALUE
from rftf_torchrl.nets.evaluate_states import evaluate_states, values_of_states
from rftf_torchrl.transforms.finite import check_finite_tensor


class ValueReward(Transform):
    r"""Reward success, and progress as a frozen value model sees it.

    .. math::
        r_t = w_{outcome} \, success_t + w_{dense} \, (\gamma V(s_{t+1}, l) - V(s_t, l))

    One class serves three places, with equal rewards:

    - an environment, ``TransformedEnv(env, ValueReward(model))``: one evaluation per reset and
      per step, with V(s_t) carried over in the tensordict;
    - a collector, ``Collector(..., postproc=ValueReward(model))``: one batched pass, one
      evaluation per distinct state. This is the fastest;
    - a replay buffer, ``rb.append_transform(ValueReward(model))``: on every sample, or once at
      writing with ``invert=True``.

    The reward that the environment wrote is replaced. A success signal that stays on after the
    first success is rewarded at each step: end the episode at success.

    The model is frozen: its parameters stop requiring gradients, it is evaluated in evaluation
    mode, and its training flags, its place in no ``state_dict`` and its device stay the user's.
    Clones share it.

    Args:
        value_model: maps the state's keys to ``value_key``, shape [*B, 1]. None gives the sparse
            reward: the dense reward is 0 and no value is written.
        gamma: discount per decision; use that of the advantage estimate.
        dense_weight: w_dense.
        outcome_weight: w_outcome.
        terminal: V(s_{t+1}) at terminations: ``"zero"`` (leaves the optimal policy unchanged,
            Ng et al. 1999) or ``"keep"`` (does not). At truncations it is always kept.
        value_range: smallest and largest value; what the model says beyond is clipped. A ranking
            loss bounds no value: off the demonstrations a linear head goes anywhere.
        success_key: bool [*B, 1], read under ``"next"``.
        terminated_key: bool [*B, 1], read under ``"next"``.
        reward_key: float32 [*B, 1], written under ``"next"``: the weighted sum.
        outcome_key: float32 [*B, 1], written under ``"next"``: success as 0 or 1.
        dense_key: float32 [*B, 1], written under ``"next"``: the unweighted shaping reward.
        value_key: float32 [*B, 1], written at the root and under ``"next"``.
        chunk_size: most states in one forward of the model.

    Raises:
        ValueError: an argument is out of range; on use, an entry has the wrong shape, or TorchRL's
            ``MultiAction`` sits in the same ``TransformedEnv`` (it skips the other transforms
            when an episode ends inside a chunk, which is where the success reward is due).
        KeyError: on use, success, terminated, ``"next"`` or a key of the model is missing.
        FloatingPointError: on use, the model returned a NaN or an infinity.

    Source: Shu, Lin, Wang, RFTF, arXiv 2505.19767, which says "reward shaping"; this form of it
    (potential-based) is our reading.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> model = TensorDictModule(lambda x: x, in_keys=["x"], out_keys=["temporal_value"])
        >>> x = torch.tensor([[0.0], [0.5], [1.0]])
        >>> data = TensorDict({"x": x[:-1], "next": {"x": x[1:]}}, [2])
        >>> data["next", "success"] = data["next", "terminated"] = torch.tensor([[False], [True]])
        >>> ValueReward(model, gamma=1.0)(data)["next", "reward"].squeeze(-1).tolist()
        [0.5, 0.5]
    """

    def __init__(
        self,
        value_model: TensorDictModuleBase | None,
        *,
        gamma: float = 0.99,
        dense_weight: float = 1.0,
        outcome_weight: float = 1.0,
        terminal: Literal["zero", "keep"] = "zero",
        value_range: tuple[float, float] | None = None,
        success_key: NestedKey = SUCCESS,
        terminated_key: NestedKey = "terminated",
        reward_key: NestedKey = REWARD,
        outcome_key: NestedKey = OUTCOME_REWARD,
        dense_key: NestedKey = DENSE_REWARD,
        value_key: NestedKey = TEMPORAL_VALUE,
        chunk_size: int = 256,
    ) -> None:
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must be in [0, 1], got {gamma}.")
        if terminal not in ("zero", "keep"):
            raise ValueError(f"terminal must be 'zero' or 'keep', got {terminal!r}.")
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError(f"value_range must be (low, high) with low < high, got {value_range}.")
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1 state per forward, got {chunk_size}.")
        state_keys = [] if value_model is None else list(value_model.in_keys)
        if value_model is not None and value_key not in value_model.out_keys:
            raise ValueError(
                f"value_key {value_key!r} is not among the value model's out_keys "
                f"{list(value_model.out_keys)}."
            )
        out_keys = [reward_key, outcome_key, dense_key]
        super().__init__(
            in_keys=[*state_keys, success_key],
            out_keys=out_keys if value_model is None else [*out_keys, value_key],
        )
        self.__dict__["_value_model"] = value_model
        if value_model is not None:
            value_model.requires_grad_(False)
        self.gamma = float(gamma)
        self.dense_weight = float(dense_weight)
        self.outcome_weight = float(outcome_weight)
        self.terminal = terminal
        self.value_range = value_range
        self.success_key = success_key
        self.terminated_key = terminated_key
        self.reward_key = reward_key
        self.outcome_key = outcome_key
        self.dense_key = dense_key
        self.value_key = value_key
        self.chunk_size = int(chunk_size)

    @property
    def value_model(self) -> TensorDictModuleBase | None:
        """The user's own model, never a copy."""
        return self._value_model

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write rewards and values to transitions of shape [*B]: states at the root and next."""
        following = tensordict.get("next", None)
        if following is None:
            raise KeyError(
                "'next' is missing: ValueReward needs transitions, with success, terminated and "
                "the next state under 'next'. Collectors with compact_obs=True drop the latter."
            )
        values = None
        if self.value_model is not None:
            value, next_value = values_of_states(
                self.value_model, tensordict, out_key=self.value_key, chunk_size=self.chunk_size
            )
            values = (
                self._checked(value, self.value_key),
                self._checked(next_value, ("next", self.value_key)),
            )
            tensordict.set(self.value_key, values[0])
            following.set(self.value_key, values[1])
        self._write_rewards(following, values)
        return tensordict.set("next", following)

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        return self.forward(next_tensordict)

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        if self.value_model is None:
            return tensordict_reset
        shape = tensordict_reset.batch_size
        reset = tensordict.get("_reset", None)
        rows = None
        if reset is not None:
            rows = reset.reshape(*shape, -1).any(-1)
        if rows is None or rows.all():
            value = self._values(self.value_model, tensordict_reset)
        else:
            value = tensordict.get(self.value_key, None)
            value = torch.zeros(*shape, 1, device=rows.device) if value is None else value.clone()
            if rows.any():
                value[rows] = self._values(self.value_model, tensordict_reset[rows])
        return tensordict_reset.set(self.value_key, self._checked(value, self.value_key))

    def _reset_on_native_autoreset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return self._reset(tensordict, tensordict_reset)

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        values = None
        if self.value_model is not None:
            value = tensordict.get(self.value_key, None)
            if value is None:
                value = self._checked(self._values(self.value_model, tensordict), self.value_key)
            next_value = self._checked(
                self._values(self.value_model, next_tensordict), ("next", self.value_key)
            )
            next_tensordict.set(self.value_key, next_value)
            values = value, next_value
        self._write_rewards(next_tensordict, values)
        return next_tensordict

    def transform_output_spec(self, output_spec: Composite) -> Composite:
        """Refuse to share an environment with ``MultiAction``; then as in any transform."""
        if self.container is not None:
            transform = self.container.transform
            if any(isinstance(t, MultiAction) for t in getattr(transform, "transforms", [])):
                raise ValueError(
                    "MultiAction skips the other transforms of its TransformedEnv when an episode "
                    "ends inside a chunk, so the success reward would be lost. Wrap twice: "
                    "TransformedEnv(TransformedEnv(env, MultiAction(...)), ValueReward(...), "
                    "auto_unwrap=False); or use ValueReward as the collector's postproc."
                )
        return super().transform_output_spec(output_spec)

    def transform_reward_spec(self, reward_spec: Composite) -> Composite:
        """Replace the reward's spec, and add those of its two parts."""
        shape, device = (*reward_spec.shape, 1), reward_spec.device
        reward_spec[self.reward_key] = Unbounded(shape=shape, device=device)
        reward_spec[self.outcome_key] = Bounded(0.0, 1.0, shape=shape, device=device)
        reward_spec[self.dense_key] = Unbounded(shape=shape, device=device)
        return reward_spec

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Add the value of the state."""
        return self._with_value(observation_spec)

    def transform_state_spec(self, state_spec: Composite) -> Composite:
        """Add the value, so that batched environments hand V(s_t) back to their workers."""
        return self._with_value(state_spec)

    def _with_value(self, spec: Composite) -> Composite:
        if self.value_model is not None:
            spec[self.value_key] = Unbounded(shape=(*spec.shape, 1), device=spec.device)
        return spec

    def _values(self, model: TensorDictModuleBase, tensordict: TensorDictBase) -> Tensor:
        """Evaluate the states at the root of ``tensordict``, shape [*B, 1]."""
        states = tensordict.select(*model.in_keys, strict=False)
        shape = states.batch_size
        states = states.reshape(-1) if len(shape) else states.unsqueeze(0)
        for key in model.in_keys:
            if states.get(key, None) is None:
                raise KeyError(
                    f"{key!r} is missing from what the environment returns, but the value model "
                    "reads it. For instruction tokens, append InstructionTokens first."
                )
        value = evaluate_states(model, states, out_key=self.value_key, chunk_size=self.chunk_size)
        return value.reshape(*shape, 1)

    def _write_rewards(self, following: TensorDictBase, values: tuple[Tensor, Tensor] | None):
        """Write outcome, dense and total reward to ``following``, the data at t + 1."""
        expected = (*following.batch_size, 1)
        flags = []
        for key, advice in (
            (
                self.success_key,
                "Have the environment write it, or name another entry with success_key= (that "
                "of torchrl's SuccessReward).",
            ),
            (
                self.terminated_key,
                "Without it every done would count as a termination and truncated episodes would "
                "lose V(s_{t+1}). Write it, or name another entry with terminated_key=.",
            ),
        ):
            flag = following.get(key, None)
            if flag is None:
                raise KeyError(f"('next', {key!r}) is missing. {advice}")
            if flag.shape != expected:
                raise ValueError(
                    f"('next', {key!r}) must have shape {expected}, got {tuple(flag.shape)}."
                )
            flags.append(flag)
        success, terminated = flags
        outcome = success.to(torch.float32)
        dense = torch.zeros_like(outcome)
        if values is not None:
            dense = potential_shaping(*values, terminated.bool(), self.gamma, self.terminal)
        following.set(self.outcome_key, outcome)
        following.set(self.dense_key, dense)
        following.set(self.reward_key, self.outcome_weight * outcome + self.dense_weight * dense)

    def _checked(self, value: Tensor, name: NestedKey) -> Tensor:
        check_finite_tensor(value, name)
        return value if self.value_range is None else value.clamp(*self.value_range)
