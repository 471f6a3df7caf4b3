"""The RFTF reward: sparse success plus a dense reward from a temporal value model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.transforms import Compose

from rftf_torchrl.keys import TEMPORAL_VALUE, nested_keys
from rftf_torchrl.rewards.dense_reward import DenseReward
from rftf_torchrl.rewards.state_values import StateValues


class ValueReward(Compose):
    r"""Reward success, and progress as a frozen value model sees it.

    .. math::
        r_t = w_{outcome} \, success_t + w_{dense} \, (\gamma V(s_{t+1}, l) - V(s_t, l))

    It is :class:`StateValues`, which evaluates the model, and :class:`DenseReward`, which applies a
    form of the reward; the equation is that of the form ``"difference"``. One class serves three
    places, with equal rewards; forms of the largest value so far need complete trajectories, see
    there:

    - an environment, ``TransformedEnv(env, ValueReward(model))``: one evaluation per reset and
      per step, with V(s_t) carried over in the tensordict;
    - a collector, ``Collector(..., postproc=ValueReward(model))``: one batched pass, one
      evaluation per distinct state. This is the fastest;
    - a replay buffer, ``rb.append_transform(ValueReward(model))``: on every sample, or once at
      writing with ``invert=True``.

    In an environment it comes after transforms that change ``terminated``. TorchRL's
    ``FrameSkipTransform`` may stand on either side: before it, a reward is that of the whole
    decision; after it, rewards of the single steps are added, each discounted as one of its own.

    Args:
        value_model: maps the state's keys to ``value_key``, shape [*B, 1]. None gives the sparse
            reward: the dense reward is 0 and no value is written.
        form: the dense reward, see :mod:`rftf_torchrl.rewards.forms`.
        value_range: see :class:`StateValues`.
        value_key: see :class:`StateValues`.
        chunk_size: see :class:`StateValues`.
        arguments: of :class:`DenseReward`: weights, keys, and options of the form. Those of
            ``"difference"``: ``gamma``, the discount per decision (use that of the advantage
            estimate), and ``terminal``, V(s_{t+1}) at terminations: ``"zero"`` (leaves the optimal
            policy unchanged, Ng et al. 1999) or ``"keep"`` (does not). At truncations it is kept.

    Raises:
        ValueError: see :class:`StateValues` and :class:`DenseReward`.
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

    @nested_keys
    def __init__(
        self,
        value_model: TensorDictModuleBase | None,
        *,
        form: str | Callable[..., Tensor] = "difference",
        value_range: tuple[float, float] | None = None,
        value_key: NestedKey = TEMPORAL_VALUE,
        chunk_size: int = 256,
        **arguments: Any,
    ) -> None:
        reward = DenseReward(form, value_key=value_key, **arguments)
        if value_model is None:
            reward.form, reward.columns = None, ()
            super().__init__(reward)
            return
        values = StateValues(
            value_model, value_range=value_range, value_key=value_key, chunk_size=chunk_size
        )
        super().__init__(values, reward)

    @property
    def value_model(self) -> TensorDictModuleBase | None:
        """The user's own model, never a copy."""
        values = self.transforms[0]
        return values.value_model if isinstance(values, StateValues) else None

    def clone(self) -> ValueReward:
        """A copy that is in no environment and shares the model."""
        copy = ValueReward.__new__(ValueReward)
        Compose.__init__(copy, *(part.clone() for part in self.transforms))
        return copy
