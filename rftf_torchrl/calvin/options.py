"""CALVIN's settings in the recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from rftf_torchrl.calvin.settings import SCENES
from rftf_torchrl.settings import Count, NotNegativeInt, one_of


@dataclass
class CalvinOptions:
    """Settings of CALVIN.

    Attributes:
        scene: scene in which the policy is fine-tuned and evaluated.
        wrist_size: width and height of the gripper camera's image in pixels; null for none.
        checkout: folder of a clone of CALVIN's main repository, whose instructions are used; null
            for this library's own.
        demo_chains: number of chains that the expert plays for the demonstrations.
        demo_scenes: letters of the scenes of the demonstrations, e.g. ``"ABC"``; null for
            ``scene``. The held-out ones are always of ``scene``, as in CALVIN's own validation
            split.
        held_out_chains: number of further chains; they judge the value model.
        start_chains: number of further chains. Fine-tuning starts its episodes where their tasks
            began.
        benchmark_chains: number of the benchmark's 1000 chains in an evaluation.
        development_chains: number of chains that an evaluation plays instead of the benchmark's, to
            choose settings by; they are drawn apart from those of demonstrations and starts. null
            plays the benchmark's.
        steps_per_subtask: number of control steps per subtask; 360 is the official protocol.
    """

    scene: Annotated[str, one_of(*SCENES)] = "D"
    wrist_size: Count | None = None
    checkout: str | None = None
    demo_chains: Count = 300
    demo_scenes: str | None = None
    held_out_chains: NotNegativeInt = 40
    start_chains: Count = 300
    benchmark_chains: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1000
    development_chains: Count | None = None
    steps_per_subtask: Count = 360
