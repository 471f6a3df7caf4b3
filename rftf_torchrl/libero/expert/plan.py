"""What to do next for LIBERO's goals, by their predicates."""
from __future__ import annotations
from rftf_torchrl.errors import UserError
from rftf_torchrl.libero.expert.carrying import carry
from rftf_torchrl.libero.expert.motions import Skill
from rftf_torchrl.libero.expert.scene import Scene

def next_step(scene: Scene, attempt: int) -> Skill | None:
    for goal in scene.goals:
        if not scene.fulfilled(goal):
            if goal[0] in ("on", "in"):
                return carry(scene, goal[1], goal[2], goal[0] == "in", attempt)
            raise UserError(f"the scripted expert of LIBERO has no skill for the goal {goal}")
    return None
