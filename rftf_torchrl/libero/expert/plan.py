"""What LIBERO's goals ask for, in which order, by their predicates."""

from __future__ import annotations

from collections.abc import Sequence

from rftf_torchrl.errors import UserError

Goal = Sequence[str]

_SKILLS = ("on", "in", "open", "close", "turnon", "turnoff")


def order(goals: Sequence[Goal]) -> list[Goal]:
    """The goals in the order in which they can be done.

    First comes what opens and turns. Then objects are moved, an object before those that are put on
    it. What closes comes last, or at the very start if nothing is put in.

    Args:
        goals: predicates in small letters with their arguments, as LIBERO parses them.

    Raises:
        UserError: for a predicate that the expert has no skill for.

    Example:
        >>> order([["close", "drawer"], ["in", "bowl", "drawer"], ["on", "cup", "bowl"]])
        [['in', 'bowl', 'drawer'], ['on', 'cup', 'bowl'], ['close', 'drawer']]
    """
    for goal in goals:
        if goal[0] not in _SKILLS:
            raise UserError(
                f"LIBERO's scripted expert has no skill for the predicate {goal[0]!r} of the goal "
                f"({' '.join(goal)}); it knows {', '.join(_SKILLS)}"
            )
    filled = [goal[2] for goal in goals if goal[0] == "in"]
    moved = {goal[1] for goal in goals if goal[0] in ("on", "in")}

    def rank(goal: Goal) -> int:
        if goal[0] == "close":
            return 4 if any(region.startswith(goal[1]) for region in filled) else 0
        if goal[0] in ("open", "turnon", "turnoff"):
            return 1
        return 3 if goal[2] in moved else 2

    return sorted(goals, key=rank)
