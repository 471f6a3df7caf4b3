"""Critics: PPO's learned state value, alone or on top of the frozen temporal value."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.nets.fusion import EncoderConfig, HeadNetwork, VisionLanguageEncoder


def small_critic(
    config: EncoderConfig,
    *,
    in_keys: Sequence[NestedKey] | None = None,
    out_key: NestedKey = keys.STATE_VALUE,
) -> TensorDictModule:
    """Builds a critic with its own encoder.

    Args:
        config: sizes of the encoder.
        in_keys: keys of the inputs that the config names, in its order; default
            ``config.in_keys``.
        out_key: where the state value goes, float [*B, 1].

    Returns:
        The critic, for :class:`torchrl.objectives.value.GAE` and PPO losses.

    Examples:
        >>> small_critic(EncoderConfig(image_size=None, state_dim=7)).out_keys
        ['state_value']
    """
    network = HeadNetwork(VisionLanguageEncoder(config), (1,), gain=0.1)
    inputs = list(config.in_keys if in_keys is None else in_keys)
    return TensorDictModule(network, in_keys=inputs, out_keys=[out_key])


class ResidualCritic(TensorDictModule):
    r"""A critic that learns what the temporal value leaves open.

    .. math::
        v(s, l) = \mathrm{stopgrad}(V(s, l)) + \mathrm{remainder}(s, l)

    It reads the temporal value from the data, so the value model is not run again. GAE also
    evaluates it at the next state and needs ``("next", value_key)`` there.

    Args:
        remainder: ``remainder(*inputs)`` -> float [*B, 1].
        in_keys: keys of its inputs.
        value_key: where the data hold the temporal value, float [*B, 1].
        out_key: where the state value goes, float [*B, 1].

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> critic = ResidualCritic(nn.Linear(2, 1), in_keys=["state"])
        >>> data = TensorDict({"state": torch.zeros(3, 2), "temporal_value": torch.ones(3, 1)}, [3])
        >>> critic(data)["state_value"].shape
        torch.Size([3, 1])
    """

    def __init__(
        self,
        remainder: nn.Module,
        *,
        in_keys: Sequence[NestedKey],
        value_key: NestedKey = keys.TEMPORAL_VALUE,
        out_key: NestedKey = keys.STATE_VALUE,
    ) -> None:
        super().__init__(_AddDetached(remainder), in_keys=[value_key, *in_keys], out_keys=[out_key])


def residual_critic(
    config: EncoderConfig,
    *,
    in_keys: Sequence[NestedKey] | None = None,
    value_key: NestedKey = keys.TEMPORAL_VALUE,
    out_key: NestedKey = keys.STATE_VALUE,
) -> ResidualCritic:
    """Builds a :class:`ResidualCritic` with its own encoder that starts as the temporal value.

    Args:
        config: sizes of the encoder.
        in_keys: keys of the inputs that the config names, in its order; default
            ``config.in_keys``.
        value_key: where the data hold the temporal value, float [*B, 1].
        out_key: where the state value goes, float [*B, 1].

    Returns:
        The critic; its last layer is zero, so at first the state value is the temporal value.

    Examples:
        >>> residual_critic(EncoderConfig(image_size=None, state_dim=7)).in_keys[0]
        'temporal_value'
    """
    network = HeadNetwork(VisionLanguageEncoder(config), (1,), gain=0.0)
    inputs = list(config.in_keys if in_keys is None else in_keys)
    return ResidualCritic(network, in_keys=inputs, value_key=value_key, out_key=out_key)


class _AddDetached(nn.Module):
    def __init__(self, remainder: nn.Module) -> None:
        super().__init__()
        self.remainder = remainder

    def forward(self, value: Tensor, *inputs: Tensor) -> Tensor:
        return value.detach() + self.remainder(*inputs)
