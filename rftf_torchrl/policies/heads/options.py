"""The settings that the action heads of several kinds of policy share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from rftf_torchrl.settings import Count, Positive

Bins = Annotated[int, Field(ge=2, strict=True)]


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Settings of the Gaussian and of the flow head.

    Attributes:
        init_scale: initial standard deviation of the Gaussian head, or of the arm.
        learn_scale: whether fine-tuning changes it.
        flow_steps: denoising steps of the flow head.
        flow_level: noise that the flow head explores with, see :func:`flow_actor`.
    """

    init_scale: Positive = 0.3
    learn_scale: bool = True
    flow_steps: Count = 4
    flow_level: Positive = 0.5
