"""Meta-World's fifty tasks and the instructions by which we ask for them."""

from __future__ import annotations

from rftf_torchrl.data.format import Task

_INSTRUCTIONS = {
    "assembly": "put the ring onto the peg",
    "basketball": "dunk the basketball into the hoop",
    "bin-picking": "move the object from one bin to the other",
    "box-close": "put the lid onto the box",
    "button-press": "press the button from the front",
    "button-press-topdown": "press the button from above",
    "button-press-topdown-wall": "press the button from above behind the wall",
    "button-press-wall": "press the button from the front behind the wall",
    "coffee-button": "push the button of the coffee machine",
    "coffee-pull": "pull the mug away from the coffee machine",
    "coffee-push": "push the mug under the coffee machine",
    "dial-turn": "turn the dial",
    "disassemble": "take the ring off the peg",
    "door-close": "close the door",
    "door-lock": "lock the door",
    "door-open": "open the door",
    "door-unlock": "unlock the door",
    "drawer-close": "close the drawer",
    "drawer-open": "open the drawer",
    "faucet-close": "close the faucet",
    "faucet-open": "open the faucet",
    "hammer": "hammer the nail into the wall",
    "hand-insert": "put the hand into the hole",
    "handle-press": "press the handle down",
    "handle-press-side": "press the handle down from the side",
    "handle-pull": "pull the handle up",
    "handle-pull-side": "pull the handle up from the side",
    "lever-pull": "pull the lever up",
    "peg-insert-side": "insert the peg from the side",
    "peg-unplug-side": "unplug the peg from the side",
    "pick-out-of-hole": "pick the puck out of the hole",
    "pick-place": "pick up the puck and hold it at the goal",
    "pick-place-wall": "pick up the puck and carry it over the wall",
    "plate-slide": "slide the plate into the cabinet",
    "plate-slide-back": "slide the plate back out of the cabinet",
    "plate-slide-back-side": "slide the plate out of the cabinet sideways",
    "plate-slide-side": "slide the plate into the cabinet sideways",
    "push": "push the puck to the goal",
    "push-back": "push the puck backward to the goal",
    "push-wall": "push the puck around the wall",
    "reach": "reach the goal position",
    "reach-wall": "reach the goal position behind the wall",
    "shelf-place": "place the puck onto the shelf",
    "soccer": "kick the ball into the net",
    "stick-pull": "pull the box with the stick",
    "stick-push": "push the box with the stick",
    "sweep": "sweep the puck off the table",
    "sweep-into": "sweep the puck into the hole",
    "window-close": "close the window",
    "window-open": "open the window",
}

SAME_SCENE = (
    ("reach", "push"),
    ("push", "pick-place"),
    ("door-lock", "door-unlock"),
    ("handle-press", "handle-pull"),
    ("handle-press-side", "handle-pull-side"),
    ("faucet-open", "faucet-close"),
    ("window-open", "window-close"),
    ("drawer-open", "drawer-close"),
)
"""Pairs of tasks in the same scene, which only the instruction tells apart."""


TASKS: dict[str, Task] = {
    name: Task(index, name, instruction)
    for index, (name, instruction) in enumerate(_INSTRUCTIONS.items())
}


def get_task(name: str) -> Task:
    """The task of this name.

    Raises:
        ValueError: for an unknown name; the message lists all fifty.

    Example:
        >>> get_task("drawer-open").instruction
        'open the drawer'
    """
    if name not in TASKS:
        raise ValueError(f"unknown Meta-World task {name!r}; choose from {', '.join(TASKS)}")
    return TASKS[name]
