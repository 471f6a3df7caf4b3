"""PPO's learned state value."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey

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
