"""A policy beside the library that it comes from: its inference there, and its format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rftf_torchrl.new_folder import NewFolder
from rftf_torchrl.policies.spec import PolicySpecProtocol
from rftf_torchrl.settings import Count, Positive


@dataclass
class CheckConfig:
    """A policy's actions beside those of the library that it comes from.

    Attributes:
        observations: number of random observations to compare on.
        bound: largest difference that passes, in the units of what is compared.
    """

    observations: Count = 8
    bound: Positive = 1e-4


@dataclass(frozen=True)
class NativeComparison:
    """What a policy computes here and what its own library computes of the same observations.

    Attributes:
        what: what is compared: ``"actions"``, ...
        ours: float [N, ...].
        native: float [N, ...].
        in_use: what both were given, by name: statistics, sizes, the prompt.

    Example:
        >>> one = torch.tensor([[[0.5, -1.0]]])
        >>> print(NativeComparison("actions", one, one + 0.25).table())
        compared            actions, 1 x 1 x 2
        largest difference  0.25
        bit for bit         no
        last number         -1 to -1 here, -0.75 to -0.75 there; same sign in 1 of 1
    """

    what: str
    ours: Tensor
    native: Tensor
    in_use: Mapping[str, str] = field(default_factory=dict)

    @property
    def largest(self) -> float:
        """The largest difference; NaN where a number is none."""
        return float((self.ours - self.native).abs().max())

    def table(self) -> str:
        """Two columns of text. The last number of an action is a gripper's, where it has one."""
        ours, native = self.ours[..., -1], self.native[..., -1]
        rows = {
            "compared": f"{self.what}, {' x '.join(map(str, self.ours.shape))}",
            "largest difference": f"{self.largest:.3g}",
            "bit for bit": "yes" if torch.equal(self.ours, self.native) else "no",
        }
        if self.what == "actions":
            same = int((ours.sign() == native.sign()).sum())
            rows["last number"] = (
                f"{ours.min():.3g} to {ours.max():.3g} here, {native.min():.3g} to "
                f"{native.max():.3g} there; same sign in {same} of {ours.numel()}"
            )
        rows |= self.in_use
        width = max(map(len, rows))
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())


def compare_with_native(
    policy: nn.Module,
    spec: PolicySpecProtocol,
    source: str | os.PathLike[str],
    sentences: Sequence[str],
    *,
    image_size: int | None = None,
) -> NativeComparison:
    """Run a policy in deterministic mode, and its own library on the same observations.

    Args:
        policy: the policy.
        spec: what describes it; it has a method ``compare_with_native``.
        source: folder or hub id from which the other library loads the same weights.
        sentences: an instruction for each observation.
        image_size: edge of the images, in pixels; None for the size that the policy names.

    Returns:
        The two outputs.

    Raises:
        ValueError: if the kind of policy comes from no other library.
    """
    compare: Any = _of(spec, "compare_with_native", "there is no inference to compare with")
    with torch.no_grad():
        found: NativeComparison = compare(policy, source, sentences, image_size)
    return found


def export_policy(
    policy: nn.Module,
    spec: PolicySpecProtocol,
    folder: str | os.PathLike[str],
    *,
    source: str | None = None,
) -> None:
    """Write a policy in the format that it came from, for the library that it came from.

    Args:
        policy: the policy, its low-rank adapters merged as in a run's files.
        spec: what describes it; it has a method ``export``.
        folder: where; it must not exist, and is there whole or not at all.
        source: what the policy was loaded from, for kinds that go back into copies of their
            authors' files: GR-MG and Seer. The others do not read it.

    Raises:
        FileExistsError: if the folder exists.
        ValueError: if the kind of policy comes from no other library, or the policy has adapters.
    """
    if any("lora_" in name for name, _ in policy.named_parameters()):
        raise ValueError("the policy has low-rank adapters: merge_lora(policy) first.")
    export: Any = _of(spec, "export", "there is no other format to export it to")
    new = NewFolder(Path(folder), "exported policies")
    try:
        export(policy, new.hidden, source)
        new.publish()
    finally:
        new.discard()


def _of(spec: PolicySpecProtocol, method: str, otherwise: str) -> Any:
    if not hasattr(spec, method):
        raise ValueError(
            f"a policy of the kind {spec.kind!r} comes from no other library, so {otherwise}: its "
            f"spec has no method {method!r}."
        )
    return getattr(spec, method)
