"""CALVIN's settings in the recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rftf_torchrl.calvin.settings import SCENES
from rftf_torchrl.settings import Count, NotNegativeInt, one_of


@dataclass
class CalvinOptions:
    """Settings of CALVIN.

    Attributes:
        scene: the scene in which the policy is fine-tuned and evaluated.
        wrist_size: edge of the gripper camera's image in pixels; null for none.
        checkout: folder of a clone of CALVIN's main repository, for its instructions; null gives
            this library's own.
        demo_chains: chains that the expert walks, from which the demonstrations are taken.
        demo_scenes: letters of the scenes they are recorded in, e.g. ``"ABC"``; null for
            ``scene``. The held-out ones are of ``scene`` in any case, as CALVIN's own validation
            split is.
        held_out_chains: further chains, to judge the value model.
        start_chains: further chains, whose tasks' first states are where fine-tuning starts its
            episodes.
        benchmark_chains: chains of the benchmark in an evaluation, of 1000.
        steps_per_subtask: control steps for a subtask; 360 is the official protocol.
    """

    scene: Annotated[str, one_of(*SCENES)] = "D"
    wrist_size: Count | None = None
    checkout: str | None = None
    demo_chains: Count = 300
    demo_scenes: str | None = None
    held_out_chains: NotNegativeInt = 40
    start_chains: Count = 300
    benchmark_chains: Count = 1000
    steps_per_subtask: Count = 360
