"""PPO's learned state value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.fusion import EncoderConfig, HeadNetwork, VisionLanguageEncoder
from rftf_torchrl.nets.sizes import ObservationSizes


@nested_keys
def small_critic(
    config: EncoderConfig,
    *,
    in_keys: Sequence[NestedKey] | None = None,
    out_key: NestedKey = keys.STATE_VALUE,
    time_key: NestedKey | None = None,
) -> TensorDictModule:
    """Builds a critic with its own encoder.

    Args:
        config: sizes of the encoder.
        in_keys: keys of the inputs that the config names, in its order; default
            ``config.in_keys``.
        out_key: where the state value goes, float [*B, 1].
        time_key: of the time that is left, float [*B, 1], see :func:`label_time_left`; None for a
            critic that isn't told.

    Returns:
        The critic, for :class:`torchrl.objectives.value.GAE` and PPO losses.

    Examples:
        >>> small_critic(EncoderConfig(image_size=None, state_dim=7)).out_keys
        ['state_value']
    """
    network: nn.Module = HeadNetwork(VisionLanguageEncoder(config), (1,), gain=0.1)
    inputs = list(config.in_keys if in_keys is None else in_keys)
    if time_key is not None:
        network = TimedValue(VisionLanguageEncoder(config))
        inputs.append(time_key)
    return TensorDictModule(network, in_keys=inputs, out_keys=[out_key])


class TimedValue(nn.Module):
    """The value of a state with a given time left.

    Args:
        encoder: of the observation.

    Examples:
        >>> import torch
        >>> encoder = VisionLanguageEncoder(EncoderConfig(image_size=None, state_dim=2))
        >>> tokens = torch.tensor([[1, 2]])
        >>> TimedValue(encoder)(torch.zeros(1, 2), tokens, tokens > 0, torch.ones(1, 1)).shape
        torch.Size([1, 1])
    """

    def __init__(self, encoder: VisionLanguageEncoder) -> None:
        super().__init__()
        features = encoder.config.features
        self.body = HeadNetwork(encoder, (features,))
        last = nn.Linear(features, 1)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()
        self.timed = nn.Sequential(nn.Linear(features + 1, features), nn.ReLU(), last)

    @property
    def encoder(self) -> VisionLanguageEncoder:
        """Of the observation."""
        return self.body.encoder

    def forward(self, *inputs: Tensor) -> Tensor:
        """Evaluates the inputs that the encoder's config names, and the time, float [*B, 1].

        Returns:
            float [*B, 1].
        """
        *observation, time = inputs
        seen = self.body(*observation)
        value: Tensor = self.timed(torch.cat([seen, time.to(seen.dtype)], -1))
        return value


@nested_keys
def policy_critic(
    policy: nn.Module, spec: Any, sizes: ObservationSizes, *, time_key: NestedKey | None = None
) -> TensorDictModule:
    """Builds a small critic for a policy.

    It starts from the encoder of a small policy. Beside a large one, it is a small network of its
    own on the raw observation.

    Args:
        policy: the policy before it is fine-tuned.
        spec: what describes it; not read.
        sizes: of the observations that a large policy's critic reads.
        time_key: see :func:`small_critic`.

    Returns:
        The critic.

    Examples:
        >>> policy_critic(nn.Linear(1, 1), None, ObservationSizes(state_dim=7)).out_keys
        ['state_value']
    """
    encoders = [m for m in policy.modules() if isinstance(m, VisionLanguageEncoder)]
    if encoders:
        critic = small_critic(encoders[0].config, time_key=time_key)
        critic.module.encoder.load_state_dict(encoders[0].state_dict())
        return critic
    critic = small_critic(
        EncoderConfig(
            image_size=sizes.image_size, state_dim=sizes.state_dim, channels=(16, 32, 32)
        ),
        time_key=time_key,
    )
    statistics = [m for m in policy.modules() if hasattr(m, "state_mean")]
    if sizes.state_dim is not None and statistics:
        mean, std = statistics[0].state_mean, statistics[0].state_std
        critic.module.encoder.set_state_statistics(mean, std)
    return critic


def no_critic(policy: nn.Module, spec: Any, sizes: ObservationSizes) -> None:
    """Builds nothing: no critic is learned.

    Args:
        policy: not read.
        spec: not read.
        sizes: not read.
    """
