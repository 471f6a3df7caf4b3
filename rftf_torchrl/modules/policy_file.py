"""A cloned or fine-tuned small policy as one file that says how to build it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tensordict.nn import ProbabilisticTensorDictSequential

from rftf_torchrl.modules.fusion import EncoderConfig
from rftf_torchrl.modules.small_vla import small_vla

__all__ = ["PolicySpec", "load_policy", "save_policy"]

_FORMAT = "rftf_torchrl.policy.1"


@dataclass(frozen=True)
class PolicySpec:
    """Everything that decides a small policy's architecture.

    Attributes:
        encoder: sizes of the encoder.
        chunk_size: actions per chunk.
        action_dim: size of an action.
        head: ``"gaussian"`` or ``"tokens"``.
        bins: bins of the token head.
        init_scale: initial standard deviation of the Gaussian head.
        learn_scale: whether the Gaussian head learns it.

    Example:
        >>> spec = PolicySpec(EncoderConfig(image_size=None, state_dim=3), 2, 4)
        >>> PolicySpec.from_dict(spec.to_dict()) == spec
        True
    """

    encoder: EncoderConfig
    chunk_size: int
    action_dim: int
    head: Literal["gaussian", "tokens"] = "gaussian"
    bins: int = 11
    init_scale: float = 0.3
    learn_scale: bool = True

    def build(self) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights; the token head's outer bins lie on -1 and 1."""
        edge = self.bins / (self.bins - 1)
        return small_vla(
            self.encoder,
            chunk_size=self.chunk_size,
            action_dim=self.action_dim,
            head=self.head,
            bins=self.bins,
            low=-edge,
            high=edge,
            init_scale=self.init_scale,
            learn_scale=self.learn_scale,
        )

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {**asdict(self), "encoder": self.encoder.to_dict()}

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> PolicySpec:
        """The spec that :meth:`to_dict` described."""
        return cls(**{**spec, "encoder": EncoderConfig.from_dict(spec["encoder"])})


def save_policy(
    policy: ProbabilisticTensorDictSequential, spec: PolicySpec, path: str | os.PathLike[str]
) -> None:
    """Write weights and spec to one safetensors file, atomically."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    weights = {name: value.contiguous().cpu() for name, value in policy.state_dict().items()}
    try:
        save_file(weights, partial, {"format": _FORMAT, "policy": json.dumps(spec.to_dict())})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_policy(
    path: str | os.PathLike[str],
) -> tuple[ProbabilisticTensorDictSequential, PolicySpec]:
    """Build the policy that :func:`save_policy` wrote, on the CPU.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged or is no policy.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no policy at {path}: run train_bc.py with the same output first, or set policy.path"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"{path} is not a policy: expected format {_FORMAT!r}, got {metadata.get('format')!r}"
        )
    spec = PolicySpec.from_dict(json.loads(metadata["policy"]))
    policy = spec.build()
    policy.load_state_dict(weights)
    return policy, spec
