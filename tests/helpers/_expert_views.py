"""Blocks and calvin_env's info as the scripted expert reads them, without the simulator."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from rftf_torchrl.calvin.expert.view import BlockView

ROBOT, TABLE, RED, BLUE, PINK = range(5)
LINKS = {"base_link": -1, "slide_link": 2, "drawer_link": 3, "plank_link": 6}
UIDS = {"red": RED, "blue": BLUE, "pink": PINK}


def a_block(position=(0.1, -0.12, 0.46), euler=(0, 0, 0), half_length=0.04, links=("base_link",)):
    return BlockView(
        name="pink",
        position=np.array(position),
        rotation=Rotation.from_euler("xyz", euler).as_matrix(),
        half_size=np.array([half_length, 0.02, 0.02]),
        touched_links=frozenset(links),
        touched_by_robot=False,
        touched_blocks=frozenset(),
    )


def contact(body, link=-1):
    return (0, 0, body, -1, link)


def an_info(contacts=None, *, robot=(), slider=0.0, drawer=0.0, led=0, lightbulb=0):
    """calvin_env's info with every block on the table unless ``contacts`` say otherwise."""
    touching = {name: [contact(TABLE)] for name in UIDS} | (contacts or {})
    blocks = {
        f"block_{name}": {
            "uid": uid,
            "current_pos": (0.1 * uid - 0.2, -0.12, 0.46),
            "current_orn": (0.0, 0.0, 0.0, 1.0),
            "contacts": touching[name],
        }
        for name, uid in UIDS.items()
    }
    return {
        "robot_info": {"uid": ROBOT, "contacts": [contact(body) for body in robot]},
        "scene_info": {
            "fixed_objects": {"table": {"uid": TABLE, "links": LINKS}},
            "movable_objects": blocks,
            "doors": {
                "base__slide": {"current_state": slider},
                "base__drawer": {"current_state": drawer},
            },
            "lights": {
                "led": {"logical_state": led},
                "lightbulb": {"logical_state": lightbulb},
            },
        },
    }
