"""A LeRobot policy that predicts chunks, as a stochastic actor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.policies.heads.actors import gaussian_actor

_ROOT = "lerobot"
# What the mean of the chunk never passes through, by policy type.
_TRAINING_ONLY = {"act": ("model.vae_encoder",)}
# Flow policies whose chunk is known to follow from ``noise=``: others accept it and draw their own.
FLOW = ("pi0", "pi05", "smolvla")
# Policies whose prediction needs a queue of past observations or a sample of its own.
_NOT_A_FUNCTION = (
    "diffusion",
    "eo1",
    "evo1",
    "fastwam",
    "gaussian_actor",
    "groot",
    "lingbot_va",
    "molmoact2",
    "multi_task_dit",
    "sac",
    "tdmpc",
    "vla_jepa",
    "vqbet",
)

Predict = Callable[[Any, dict[str, Tensor]], Tensor]


def lerobot_actor(
    policy: nn.Module,
    *,
    inputs: Sequence[str] | None = None,
    chunk_size: int | None = None,
    unnormalise: Callable[[Tensor], Tensor] | None = None,
    predict: Predict | None = None,
    **options: Any,
) -> ProbabilisticTensorDictSequential:
    r"""Makes a Gaussian policy whose mean is the chunk that a LeRobot policy predicts.

    .. math::
        a \sim N(\mathrm{unnormalise}(\mathrm{policy}(o))_{1..H}, \sigma)

    It reads LeRobot's own inputs, which :class:`LeRobotObservation` writes. The policy is always
    evaluated in LeRobot's evaluation mode: no dropout, and ACT's latent is zero. A flow policy
    (SmolVLA, pi0, pi0.5) integrates from zero noise, so that its chunk is a function of the
    observation; the gradient passes through every step of the integration. Other flow policies are
    refused without ``predict``, and every policy but ACT and those three predicts twice here.

    Args:
        policy: a ``PreTrainedPolicy`` of LeRobot.
        inputs: entries of LeRobot's batch to read besides the instruction's tokens; default all
            of its ``input_features``. SmolVLA and pi0 can do without some of their cameras.
        chunk_size: actions per chunk, H; the policy's first ones are taken. Default: its own.
        unnormalise: from LeRobot's normalised actions to the environment's, differentiable; None
            leaves them. :class:`LeRobotSpec` passes LeRobot's own.
        predict: ``predict(policy, batch)`` -> chunk, float [N, H', A], for a policy that this
            function does not know.
        **options: of :func:`gaussian_actor`, such as ``init_scale``, the initial standard deviation
            in the environment's units.

    Returns:
        The policy, with the keys of :func:`gaussian_actor`.

    Raises:
        ValueError: if the policy's chunk is no function of one observation (two predictions of one
            differ), its type of flow is not known, or the chunk is too short.

    Examples:
        >>> _ = __import__("pytest").importorskip("lerobot")
        >>> from lerobot.configs.types import FeatureType, PolicyFeature
        >>> from lerobot.policies.act.modeling_act import ACTConfig, ACTPolicy
        >>> from tensordict import TensorDict
        >>> config = ACTConfig(
        ...     input_features={
        ...         "observation.state": PolicyFeature(FeatureType.STATE, (3,)),
        ...         "observation.environment_state": PolicyFeature(FeatureType.ENV, (2,)),
        ...     },
        ...     output_features={"action": PolicyFeature(FeatureType.ACTION, (4,))},
        ...     device="cpu", chunk_size=6, n_action_steps=6, dim_model=16, n_heads=2,
        ...     dim_feedforward=16, latent_dim=4,
        ... )
        >>> actor = lerobot_actor(ACTPolicy(config), chunk_size=5)
        >>> state, world = torch.zeros(2, 3), torch.zeros(2, 2)
        >>> batch = {"lerobot": {"observation": {"state": state, "environment_state": world}}}
        >>> actor(TensorDict(batch, [2]))["vla_action", "chunk"].shape
        torch.Size([2, 5, 4])
    """
    config: Any = policy.config
    known = False
    if predict is None:
        if config.type in _NOT_A_FUNCTION or getattr(config, "n_obs_steps", 1) != 1:
            raise ValueError(
                f"the chunk of a {config.type!r} policy is no function of one observation (it "
                "needs past ones, or a sample of its own): pass predict=, a function of policy "
                "and batch."
            )
        if hasattr(config, "max_action_dim") and config.type not in FLOW:
            raise ValueError(
                f"a {config.type!r} policy is a flow, and only {', '.join(FLOW)} are known to "
                "start from the noise that they are given: pass predict=, a function of policy and "
                "batch whose chunk is the same at each call."
            )
        predict = _predict_flow if config.type in FLOW else _predict
        known = config.type in (*FLOW, "act")
    longest = getattr(config, "chunk_size", None)
    if chunk_size is None:
        chunk_size = longest
    if chunk_size is None or (longest is not None and chunk_size > longest):
        raise ValueError(
            f"chunk_size must be 1 to {longest}, the chunk of this {config.type!r} policy, got "
            f"{chunk_size}."
        )
    for name, parameter in policy.named_parameters():
        if name.startswith(_TRAINING_ONLY.get(config.type, ())):
            parameter.requires_grad_(False)
    names = batch_names(config, inputs)
    mean = LeRobotMean(policy.eval(), names, predict, unnormalise, chunk_size)
    if not known:
        _refuse_chance(mean)
    return gaussian_actor(
        TensorDictModule(mean, [batch_key(name) for name in names], [keys.LOC]),
        chunk_size=chunk_size,
        action_dim=config.action_feature.shape[0],
        **options,
    )


def batch_key(name: str) -> NestedKey:
    """TensorDict key of an entry of LeRobot's batch: its dots nest, under ``"lerobot"``."""
    return (_ROOT, *name.split("."))


def batch_names(config: Any, inputs: Sequence[str] | None = None) -> list[str]:
    """Entries of LeRobot's batch that a policy reads, `inputs` and what its tokenizer writes."""
    names = list(config.input_features if inputs is None else inputs)
    if hasattr(config, "tokenizer_max_length"):
        names += ["observation.language.tokens", "observation.language.attention_mask"]
    return names


class LeRobotMean(nn.Module):
    def __init__(
        self,
        policy: nn.Module,
        names: Sequence[str],
        predict: Predict,
        unnormalise: Callable[[Tensor], Tensor] | None,
        chunk_size: int,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.names = tuple(names)
        self.predict = predict
        self.unnormalise = unnormalise
        self.chunk_size = chunk_size
        features: Any = policy.config.input_features  # type: ignore[union-attr]
        self.dims = {name: len(features[name].shape) for name in features}

    def forward(self, *inputs: Tensor) -> Tensor:
        first = inputs[0].ndim - self.dims.get(self.names[0], 1)
        shape = inputs[0].shape[:first]
        batch = {
            name: value.reshape(shape.numel(), *value.shape[first:])
            for name, value in zip(self.names, inputs, strict=True)
        }
        chunk = self.predict(self.policy, batch)
        trained = any(p.requires_grad for p in self.policy.parameters())
        if torch.is_grad_enabled() and trained and not chunk.requires_grad:
            raise ValueError(
                f"no gradient reaches the {self.policy.config.type!r} policy, because its "
                "prediction switches gradients off: pass predict=, a function of policy and batch "
                "that does not, or run it under torch.no_grad()."
            )
        if self.unnormalise is not None:
            chunk = self.unnormalise(chunk)
        chunk = chunk[:, : self.chunk_size].float()
        return chunk.reshape(*shape, *chunk.shape[1:])

    def train(self, mode: bool = True) -> LeRobotMean:
        """Sets the training mode; the policy stays in LeRobot's evaluation mode."""
        super().train(mode)
        self.policy.eval()
        return self


def _refuse_chance(mean: LeRobotMean) -> None:
    """Compare two predictions of one observation."""
    config: Any = mean.policy.config
    device = next(mean.policy.parameters()).device
    sizes = {name: feature.shape for name, feature in config.input_features.items()}
    batch = []
    for name in mean.names:
        if name in sizes:
            batch.append(torch.zeros(1, *sizes[name], device=device))
        else:
            dtype = torch.bool if name.endswith("mask") else torch.int64
            batch.append(torch.ones(1, config.tokenizer_max_length, dtype=dtype, device=device))
    used = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=used):
        first, second = mean(*batch), mean(*batch)
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ValueError(
            f"two predictions of one observation differ by up to "
            f"{float((first - second).abs().max()):.3g}: the chunk of this {config.type!r} policy "
            "depends on chance. Pass predict=, a function of policy and batch that starts from "
            "noise of its own choice, the same at each call."
        )


def _with_gradients(owner: Any, name: str) -> Callable[..., Tensor]:
    """A method of LeRobot without the ``torch.no_grad`` around it."""
    method = getattr(type(owner), name)
    method = getattr(method, "__wrapped__", method)
    return lambda *args, **kwargs: method(owner, *args, **kwargs)


def _predict(policy: Any, batch: dict[str, Tensor]) -> Tensor:
    return _with_gradients(policy, "predict_action_chunk")(batch)


def _predict_flow(policy: Any, batch: dict[str, Tensor]) -> Tensor:
    config = policy.config
    count = len(next(iter(batch.values())))
    device = next(policy.parameters()).device
    noise = torch.zeros(count, config.chunk_size, config.max_action_dim, device=device)
    with _sampling_with_gradients(policy.model):
        return _with_gradients(policy, "predict_action_chunk")(batch, noise=noise)


@contextmanager
def _sampling_with_gradients(model: Any) -> Iterator[None]:
    """Without the second ``torch.no_grad`` that pi0 has around its integration."""
    method = getattr(type(model), "sample_actions", None)
    if not hasattr(method, "__wrapped__") or "sample_actions" in vars(model):
        yield
        return
    model.sample_actions = _with_gradients(model, "sample_actions")
    try:
        yield
    finally:
        del model.sample_actions
