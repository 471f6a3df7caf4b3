"""A small vision-language-action policy, assembled from the package's parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.nets.fusion import EncoderConfig, HeadNetwork, VisionLanguageEncoder
from rftf_torchrl.policies.heads.actors import gaussian_actor, token_actor
from rftf_torchrl.policies.heads.arm_gripper import ARM_LOC, arm_gripper_actor
from rftf_torchrl.policies.heads.flow import flow_actor
from rftf_torchrl.policies.heads.flow_networks import ChunkVelocity

Head = Literal["gaussian", "arm_gripper", "tokens", "flow"]


def small_vla(
    config: EncoderConfig,
    *,
    chunk_size: int,
    action_dim: int,
    head: Head = "gaussian",
    bins: int = 11,
    low: float = -1.0,
    high: float = 1.0,
    init_scale: float = 0.3,
    learn_scale: bool = True,
    scale_bounds: tuple[float, float] = (0.05, 1.0),
    flow_steps: int = 4,
    flow_level: float = 0.5,
    in_keys: Sequence[NestedKey] | None = None,
) -> ProbabilisticTensorDictSequential:
    """Builds a small vision-language-action policy that trains on a CPU.

    Args:
        config: sizes of the encoder.
        chunk_size: actions per chunk, H.
        action_dim: size of an action, A.
        head: ``"gaussian"`` (:func:`gaussian_actor`), ``"arm_gripper"``
            (:func:`arm_gripper_actor`, of which the last action dimension is the gripper's),
            ``"tokens"`` (:func:`token_actor`) or ``"flow"`` (:func:`flow_actor`).
        bins: bins of the token head.
        low: lower end of the token head's range.
        high: upper end of the token head's range.
        init_scale: initial standard deviation of the Gaussian head, or of the arm.
        learn_scale: whether it is learned.
        scale_bounds: its bounds.
        flow_steps: denoising steps of the flow head.
        flow_level: noise level of the flow head.
        in_keys: keys of the inputs that the config names, in its order; default
            ``config.in_keys``.

    Returns:
        The policy.

    Raises:
        ValueError: if the head is unknown.

    Examples:
        >>> config = EncoderConfig(image_size=None, state_dim=7)
        >>> actor = small_vla(config, chunk_size=4, action_dim=2)
        >>> actor.in_keys[0]
        ('observation', 'state')
    """
    inputs = list(config.in_keys if in_keys is None else in_keys)
    encoder = VisionLanguageEncoder(config)
    shape = (chunk_size, action_dim)
    sizes: Any = {"chunk_size": chunk_size, "action_dim": action_dim}
    if head == "flow":
        network = HeadNetwork(encoder, (config.features,))
        return flow_actor(
            TensorDictModule(network, in_keys=inputs, out_keys=[keys.FEATURES]),
            ChunkVelocity(config.features, shape),
            steps=flow_steps,
            level=flow_level,
            **sizes,
        )
    if head == "tokens":
        network = HeadNetwork(encoder, (*shape, bins), gain=0.1)
        module = TensorDictModule(network, in_keys=inputs, out_keys=[keys.LOGITS])
        return token_actor(module, bins=bins, low=low, high=high, **sizes)
    if head not in ("gaussian", "arm_gripper"):
        raise ValueError(
            f"head must be 'gaussian', 'arm_gripper', 'tokens' or 'flow', got {head!r}."
        )
    network = HeadNetwork(encoder, shape, gain=0.1)
    scale: Any = {
        "init_scale": init_scale,
        "learn_scale": learn_scale,
        "scale_bounds": scale_bounds,
    }
    if head == "gaussian":
        module = TensorDictModule(network, in_keys=inputs, out_keys=[keys.LOC])
        return gaussian_actor(module, **sizes, **scale)
    module = TensorDictModule(_ArmGripper(network), inputs, [ARM_LOC, keys.LOGITS])
    return arm_gripper_actor(module, chunk_size=chunk_size, arm_dim=action_dim - 1, **scale)


class _ArmGripper(nn.Module):
    """Splits a network's last dimension into the arm's mean and the gripper's logit."""

    def __init__(self, network: HeadNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(*inputs)
        return found[..., :-1], found[..., -1]
