"""Calibration of a score so that demonstrations run from 0 to 1."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

CalibrationMode = Literal["instruction", "global", "standardise"]


def same_instruction(tokens: Tensor, known: Tensor) -> Tensor:
    """Which of the known instructions [K, L] each row [*B, M] is, but for zeros at its end.

    Example:
        >>> same_instruction(torch.tensor([[7, 2, 0]]), torch.tensor([[7, 2], [7, 3]]))
        tensor([[ True, False]])
    """
    length = max(tokens.shape[-1], known.shape[-1])
    asked, listed = (pad(each, (0, length - each.shape[-1])) for each in (tokens, known))
    return (asked.unsqueeze(-2) == listed).all(-1)


class ValueCalibration(nn.Module):
    r"""An affine map of raw scores, one for all instructions or one for each known instruction.

    .. math::
        V = (\mathrm{raw} - \mathrm{offset}_l) / \mathrm{scale}_l

    An instruction is known by its row of tokens, but for zeros at its end, which are padding; any
    other one uses the global map. The
    ranking loss fixes a score up to a constant only, and the constant may differ between
    instructions, which is why a reward in units of progress needs this step.

    Examples:
        >>> calibration = ValueCalibration()
        >>> calibration.fit(torch.tensor([-2.0, -4.0]), torch.tensor([1.0, 3.0]), mode="global")
        >>> calibration(torch.tensor([[-3.0], [2.0]]))
        tensor([[0.],
                [1.]])
    """

    offset: Tensor
    scale: Tensor
    tokens: Tensor
    offsets: Tensor
    scales: Tensor
    ANY_SHAPE = ("tokens", "offsets", "scales")
    """Buffers that take the shape of what is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("tokens", torch.zeros(0, 0, dtype=torch.int64))
        self.register_buffer("offsets", torch.zeros(0))
        self.register_buffer("scales", torch.ones(0))

    @property
    def per_instruction(self) -> bool:
        """Whether there is a table of instructions."""
        return self.tokens.shape[0] > 0

    @property
    def fitted(self) -> bool:
        """Whether there is any map; without one raw scores come back as they are."""
        return self.per_instruction or bool(self.offset != 0) or bool(self.scale != 1)

    def forward(self, raw: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Calibrates raw scores.

        Args:
            raw: float [*B, 1].
            tokens: int64 [*B, L]; needed with a table of instructions.

        Returns:
            float [*B, 1].

        Raises:
            ValueError: with a table of instructions, if the tokens are missing, or have another
                length and are not padded with zeros.
        """
        if not self.per_instruction:
            return (raw - self.offset) / self.scale
        if tokens is None:
            raise ValueError("calibration per instruction needs tokens of shape [*B, L], got None.")
        match = self._match(tokens)
        known, row = match.any(-1, keepdim=True), match.to(torch.uint8).argmax(-1, keepdim=True)
        offset = torch.where(known, self.offsets[row], self.offset)
        scale = torch.where(known, self.scales[row], self.scale)
        return (raw - offset) / scale

    def knows(self, tokens: Tensor) -> Tensor:
        """Whether instructions, int64 [*B, L], are in the table: bool [*B]; True without one."""
        if not self.per_instruction:
            return torch.ones(tokens.shape[:-1], dtype=torch.bool, device=tokens.device)
        return self._match(tokens).any(-1)

    def _match(self, tokens: Tensor) -> Tensor:
        """Which row of the table an instruction is, bool [*B, K]."""
        if tokens.shape[-1] != self.tokens.shape[-1] and (self.tokens[:, -1] != 0).all():
            raise ValueError(
                f"calibration per instruction knows {self.tokens.shape[-1]} tokens of each, and "
                f"none ends in padding (0); got {tokens.shape[-1]}: tokenise with the same length "
                "as at calibration."
            )
        return same_instruction(tokens, self.tokens)

    @torch.no_grad()
    def fit(
        self,
        first: Tensor,
        last: Tensor,
        first_tokens: Tensor | None = None,
        last_tokens: Tensor | None = None,
        *,
        mode: CalibrationMode = "instruction",
        names: list[str] | None = None,
    ) -> None:
        """Sets the map from the raw scores of first and last demonstration frames.

        Args:
            first: raw scores of first frames, float [N].
            last: raw scores of last frames, float [M].
            first_tokens: int64 [N, L], for mode ``"instruction"``.
            last_tokens: int64 [M, L], for mode ``"instruction"``.
            mode: ``"instruction"`` and ``"global"`` send the mean first frame to 0 and the mean
                last frame to 1, for each instruction or for all frames together;
                ``"standardise"`` makes mean 0 and standard deviation 1 over all given frames.
            names: N texts of the instructions, for error messages.

        Raises:
            ValueError: if there is no frame, last frames do not score above first ones on average,
                an instruction has no last frame, tokens are missing, or the mode is unknown.
        """
        if mode not in ("instruction", "global", "standardise"):
            raise ValueError(
                f"mode must be 'instruction', 'global' or 'standardise', got {mode!r}."
            )
        if not (len(first) and len(last)):
            raise ValueError(
                f"cannot calibrate from {len(first)} first and {len(last)} last frames, expected "
                "one of each at least: give demonstrations that succeed."
            )
        offset, what = first.mean(), "all instructions together"
        scale = last.mean() - offset
        table, offsets, scales = self.tokens.new_zeros(0, 0), first.new_zeros(0), first.new_zeros(0)
        if mode == "standardise":
            scores, what = torch.cat([first, last]), "the scores' spread"
            offset, scale = scores.mean(), scores.std(correction=0)
        elif mode == "instruction":
            if first_tokens is None or last_tokens is None:
                raise ValueError("mode 'instruction' needs first_tokens and last_tokens.")
            table = first_tokens.unique(dim=0)
            rows = [_row(t, first, last, first_tokens, last_tokens, names) for t in table]
            offsets, scales = (torch.stack(column) for column in zip(*rows, strict=True))
        self.offset, self.scale = offset.to(self.offset), _positive(scale, what).to(self.scale)
        self.tokens = table.to(self.tokens)
        self.offsets, self.scales = offsets.to(self.offset), scales.to(self.scale)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.ANY_SHAPE:
            saved = state_dict.get(prefix + name)
            if saved is not None:
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _positive(gain: Tensor, name: str) -> Tensor:
    if not gain > 0:
        raise ValueError(
            f"cannot calibrate: for {name} the last frames score {float(gain):.4g} above the first "
            "ones on average, expected more than 0. Train the value model longer, or check that "
            "the frames are in time order and come from successes."
        )
    return gain


def _row(
    tokens: Tensor,
    first: Tensor,
    last: Tensor,
    first_tokens: Tensor,
    last_tokens: Tensor,
    names: list[str] | None,
) -> tuple[Tensor, Tensor]:
    """Offset and scale of one instruction."""
    here, there = (first_tokens == tokens).all(-1), (last_tokens == tokens).all(-1)
    name = f"the instruction with tokens {tokens.tolist()}"
    if names is not None:
        name = f"the instruction {names[int(here.nonzero()[0])]!r}"
    if not there.any():
        raise ValueError(f"no last frame for {name}: pass both ends of each demonstration.")
    offset = first[here].mean()
    return offset, _positive(last[there].mean() - offset, name)
