"""Evaluate a value model once per state, and write its values."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Composite, Unbounded
from torchrl.envs.transforms import FrameSkipTransform, Transform

from rftf_torchrl.keys import TEMPORAL_VALUE, nested_keys
from rftf_torchrl.nets.entries import required, written_value
from rftf_torchrl.nets.evaluate_states import evaluate_states, values_of_states
from rftf_torchrl.rewards.places import later_transforms, next_data, resets_inside_a_step
from rftf_torchrl.transforms.finite import check_finite_tensor


class StateValues(Transform):
    """Writes V(s_t) at the root and V(s_{t+1}) under ``"next"``, for forms of the reward to read.

    It serves three places, with equal values:

    - an environment: one evaluation per reset and per step, with V(s_t) carried over in the
      tensordict;
    - a collector, ``Collector(..., postproc=StateValues(model))``: one batched pass, one
      evaluation per distinct state, T + 1 for a trajectory of T steps. This is the fastest;
    - a replay buffer.

    An environment that resets inside a step (TorchRL's native auto-reset) does not show the last
    state of an episode: there V(s_t) is taken for V(s_{t+1}).

    The model is frozen: its parameters stop requiring gradients, it is evaluated in evaluation
    mode, and its training flags, its place in no ``state_dict`` and its device stay the user's.
    Clones share it.

    Args:
        value_model: maps the state's keys to ``value_key``, shape [*B, 1], or, as TorchRL's
            ``ValueOperator``, to ``"state_value"``.
        value_range: smallest and largest value; what the model says beyond is clipped. A ranking
            loss bounds no value: off the demonstrations a linear head goes anywhere.
        value_key: float32 [*B, 1], written at the root and under ``"next"``.
        chunk_size: most states in one forward of the model.

    Raises:
        ValueError: an argument is out of range, or the model writes neither of the two keys.
        KeyError: on use, ``"next"`` or a key of the model is missing.
        FloatingPointError: on use, the model returned a NaN or an infinity.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> model = TensorDictModule(lambda x: x, in_keys=["x"], out_keys=["temporal_value"])
        >>> x = torch.tensor([[0.0], [0.5], [1.0]])
        >>> data = StateValues(model)(TensorDict({"x": x[:-1], "next": {"x": x[1:]}}, [2]))
        >>> data["next", "temporal_value"].squeeze(-1).tolist()
        [0.5, 1.0]
    """

    @nested_keys
    def __init__(
        self,
        value_model: TensorDictModuleBase,
        *,
        value_range: tuple[float, float] | None = None,
        value_key: NestedKey = TEMPORAL_VALUE,
        chunk_size: int = 256,
    ) -> None:
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError(f"value_range must be (low, high) with low < high, got {value_range}.")
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1 state per forward, got {chunk_size}.")
        self.__dict__["_written"] = written_value(value_model, value_key)
        super().__init__(in_keys=list(value_model.in_keys), out_keys=[value_key])
        self.__dict__["_value_model"] = value_model.requires_grad_(False)
        self.__dict__["_skipped"] = {}
        self.value_range = value_range
        self.value_key = value_key
        self.chunk_size = int(chunk_size)

    @property
    def value_model(self) -> TensorDictModuleBase:
        """The user's own model, never a copy."""
        return self._value_model

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write values to transitions of shape [*B]: states at the root and under ``"next"``."""
        following = next_data(self, tensordict)
        value, next_value = values_of_states(
            self.value_model, tensordict, out_key=self._written, chunk_size=self.chunk_size
        )
        tensordict.set(self.value_key, self._checked(value, self.value_key))
        following.set(self.value_key, self._checked(next_value, ("next", self.value_key)))
        return tensordict.set("next", following)

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        return self.forward(next_tensordict)

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        shape = tensordict_reset.batch_size
        reset = tensordict.get("_reset", None)
        rows = None
        if reset is not None:
            rows = reset.reshape(*shape, -1).any(-1)
        if rows is None or rows.all():
            value = self._values(tensordict_reset)
        else:
            value = tensordict.get(self.value_key, None)
            value = torch.zeros(*shape, 1, device=rows.device) if value is None else value.clone()
            if rows.any():
                value[rows] = self._values(tensordict_reset[rows])
        return tensordict_reset.set(self.value_key, self._checked(value, self.value_key))

    def _reset_on_native_autoreset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return self._reset(tensordict, tensordict_reset)

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        value = tensordict.get(self.value_key, None)
        if value is None:
            value = self._checked(self._values(tensordict), self.value_key)
        next_value = self._checked(self._values(next_tensordict), ("next", self.value_key))
        if resets_inside_a_step(self):  # what is there is the next episode's first state
            done = next_tensordict.get("done").reshape(next_value.shape) != 0
            next_value = torch.where(done, value, next_value)
        tensordict.set(self.value_key, self._before(value, next_value))
        return next_tensordict.set(self.value_key, next_value)

    def _before(self, value: Tensor, next_value: Tensor) -> Tensor:
        """V(s_t), also where FrameSkipTransform lets a clone step on from one root."""
        skipped = self._skipped  # Clones share it.
        if any(isinstance(later, FrameSkipTransform) for later in later_transforms(self)):
            skipped.update(root=value, value=value)
        elif skipped.get("root") is not value:
            return value
        before: Tensor = skipped["value"]
        skipped["value"] = next_value
        return before

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Add the value of the state."""
        return self._with_value(observation_spec)

    def transform_state_spec(self, state_spec: Composite) -> Composite:
        """Add the value, so that batched environments hand V(s_t) back to their workers."""
        return self._with_value(state_spec)

    def _with_value(self, spec: Composite) -> Composite:
        spec[self.value_key] = Unbounded(shape=(*spec.shape, 1), device=spec.device)
        return spec

    def _values(self, tensordict: TensorDictBase) -> Tensor:
        """Evaluate the states at the root of ``tensordict``, shape [*B, 1]."""
        model = self.value_model
        states = tensordict.select(*model.in_keys, strict=False)
        shape = states.batch_size
        states = states.reshape(-1) if len(shape) else states.unsqueeze(0)
        for key in model.in_keys:
            required(
                states,
                key,
                " from what the environment returns, but the value model reads it. For instruction "
                "tokens, append InstructionTokens first.",
            )
        value = evaluate_states(model, states, out_key=self._written, chunk_size=self.chunk_size)
        return value.reshape(*shape, 1)

    def _checked(self, value: Tensor, name: NestedKey) -> Tensor:
        check_finite_tensor(value, name)
        return value if self.value_range is None else value.clamp(*self.value_range)
