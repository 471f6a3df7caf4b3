"""The critic of a run."""

from __future__ import annotations

from torch import nn

from rftf_torchrl import (
    EncoderConfig,
    PolicySpecProtocol,
    RunConfig,
    VisionLanguageEncoder,
    residual_critic,
    small_critic,
)


def build_critic(
    config: RunConfig, policy: nn.Module, spec: PolicySpecProtocol
) -> nn.Module | None:
    """The critic; None where none is learned.

    It starts from the encoder of a small policy. Beside a large one, it is a small network of its
    own on the raw observation.
    """
    if config.critic in ("temporal", "none", "group"):
        return None
    build = residual_critic if config.critic == "residual" else small_critic
    found = [m for m in policy.modules() if isinstance(m, VisionLanguageEncoder)]
    if found:
        critic = build(found[0].config)
        encoder = next(m for m in critic.modules() if isinstance(m, VisionLanguageEncoder))
        encoder.load_state_dict(found[0].state_dict())
        return critic
    state_dim = getattr(spec, "state_dim", None)
    critic = build(
        EncoderConfig(
            image_size=config.env.image_size,
            state_dim=state_dim,
            channels=(16, 32, 32),
        )
    )
    statistics = [m for m in policy.modules() if hasattr(m, "state_mean")]
    if state_dim is not None and statistics:
        encoder = next(m for m in critic.modules() if isinstance(m, VisionLanguageEncoder))
        encoder.set_state_statistics(statistics[0].state_mean, statistics[0].state_std)
    return critic
