"""What each part of a run costs in memory and time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rftf_torchrl.evaluation.report import markdown_table, phase_table

_MIB = 2**20


@dataclass(frozen=True)
class PartFootprint:
    """The parameters of one part.

    Attributes:
        part: its name.
        parameters: how many numbers.
        trained: how many of them require gradients.
        weights_mib: memory of parameters and buffers, in MiB.
        gradients_mib: memory of the gradients, in MiB.
        optimizer_mib: memory of the optimizer's state, in MiB.
    """

    part: str
    parameters: int
    trained: int
    weights_mib: float
    gradients_mib: float
    optimizer_mib: float


@dataclass(frozen=True)
class Footprint:
    """Memory per part, seconds per phase and the peak of the device; ``str()`` is a table.

    Attributes:
        parts: one entry per part.
        seconds: wall time by phase.
        peak_mib: most memory that Torch had allocated on the CUDA device, in MiB; None elsewhere.
    """

    parts: list[PartFootprint]
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: float | None = None

    def __str__(self) -> str:
        """The table, in Markdown."""
        header = ["part", "parameters", "trained", "weights", "gradients", "optimizer"]
        rows = []
        for row in self.parts:
            sizes = (row.weights_mib, row.gradients_mib, row.optimizer_mib)
            counts = [f"{row.parameters:,}", f"{row.trained:,}"]
            rows.append([row.part, *counts, *(f"{size:,.1f} MiB" for size in sizes)])
        blocks = [markdown_table(header, rows)]
        if self.peak_mib is not None:
            blocks.append(f"Peak on the device: {self.peak_mib:,.0f} MiB")
        if self.seconds:
            blocks.append(phase_table(self.seconds))
        return "\n\n".join(blocks)


def footprint(
    parts: Mapping[str, nn.Module],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    seconds: Mapping[str, float] | None = None,
    device: torch.device | str = "cpu",
) -> Footprint:
    """Measures the memory of parts of a run.

    Args:
        parts: modules by name. A parameter that two parts share counts in the first.
        optimizer: whose state to count; it has some after its first step.
        seconds: wall time by phase, :attr:`PhaseClock.seconds`.
        device: on a CUDA device the peak is read too, since the start of the process or
            ``torch.cuda.reset_peak_memory_stats()``: the peak less the parts' sums is what
            activations took.

    Returns:
        The footprint; print it.

    Example:
        >>> layer = nn.Linear(1023, 1024)
        >>> print(footprint({"head": layer.requires_grad_(False)}))
        | part | parameters | trained | weights | gradients | optimizer |
        |---|---:|---:|---:|---:|---:|
        | head | 1,048,576 | 0 | 4.0 MiB | 0.0 MiB | 0.0 MiB |
    """
    device = torch.device(device)
    counted: set[int] = set()
    rows = []
    for name, module in parts.items():
        parameters = [p for p in module.parameters() if id(p) not in counted]
        buffers = [b for b in module.buffers() if id(b) not in counted]
        counted.update(map(id, parameters + buffers))
        state: list[Tensor] = []
        if optimizer is not None:
            for parameter in parameters:
                held = optimizer.state.get(parameter, {}).values()
                state += [value for value in held if isinstance(value, Tensor)]
        rows.append(
            PartFootprint(
                name,
                parameters=sum(p.numel() for p in parameters),
                trained=sum(p.numel() for p in parameters if p.requires_grad),
                weights_mib=_mib([*parameters, *buffers]),
                gradients_mib=_mib(p.grad for p in parameters if p.grad is not None),
                optimizer_mib=_mib(state),
            )
        )
    peak = torch.cuda.max_memory_allocated(device) / _MIB if device.type == "cuda" else None
    return Footprint(rows, dict(seconds or {}), peak)


def _mib(tensors: Iterable[Tensor]) -> float:
    return sum(each.numel() * each.element_size() for each in tensors) / _MIB
