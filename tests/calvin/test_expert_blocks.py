"""Blocks as the expert sees them, and how it holds them."""

from __future__ import annotations

import numpy as np
import pytest
from _expert_views import BLUE, ROBOT, TABLE, a_block, an_info, contact

from rftf_torchrl import scene_geometry
from rftf_torchrl.calvin.expert.grasping import grasp_height, grasp_yaw, shelf_yaw
from rftf_torchrl.calvin.expert.motions import near_yaw
from rftf_torchrl.calvin.expert.view import block_views


class TestBlocks:
    def test_extent_of_a_turned_block(self):
        block = a_block(euler=(0, 0, np.pi / 2))
        np.testing.assert_allclose(block.extent, [0.02, 0.04, 0.02], atol=1e-9)
        assert block.top == pytest.approx(0.48)

    def test_a_standing_block_is_held_near_its_top(self):
        block = a_block(position=(0.1, -0.12, 0.48), euler=(0, np.pi / 2, 0))
        assert not block.lying
        assert block.square
        assert grasp_height(block) == pytest.approx(0.49)

    @pytest.mark.parametrize("heading", np.linspace(-3, 3, 7))
    def test_a_long_block_is_held_across_its_short_side(self, heading):
        yaw = grasp_yaw(a_block(euler=(0, 0, heading)))
        assert np.sin(yaw - heading) == pytest.approx(0, abs=1e-9)
        assert abs(yaw - 1.5) <= np.pi / 2 + 1e-9

    def test_a_turn_ends_as_far_from_rest_as_it_begins(self):
        cube = a_block(euler=(0, 0, 0.9), half_length=0.02)
        yaw = grasp_yaw(cube, turn=1.2)
        assert abs(yaw + 0.6 - 1.5) <= np.pi / 4

    def test_the_hand_goes_straight_into_the_cabinet_where_it_can(self):
        assert shelf_yaw(a_block(euler=(0, 0, 1.3))) == pytest.approx(np.pi / 2)
        assert shelf_yaw(a_block(euler=(0, 0, 0.9))) == pytest.approx(1.3)

    def test_near_yaw_keeps_the_angle_up_to_the_period(self):
        assert near_yaw(1.5 + 7 * np.pi) == pytest.approx(1.5)
        assert near_yaw(0.2, np.pi / 2) == pytest.approx(0.2 + np.pi / 2)

    @pytest.mark.parametrize(
        ("links", "place"),
        [
            (["base_link"], "table"),
            (["plank_link"], "slider"),
            (["drawer_link", "base_link"], "drawer"),
            ([], None),
        ],
    )
    def test_place(self, links, place):
        assert a_block(links=links).place == place

    def test_views_of_calvins_info(self):
        info = an_info({"red": [contact(ROBOT, 10), contact(BLUE)], "pink": [contact(TABLE, 6)]})
        views = block_views(info, scene_geometry("A"))
        assert views["red"].touched_by_robot
        assert views["red"].touched_blocks == {"blue"}
        assert views["pink"].place == "slider"
        assert views["blue"].place == "table"
        assert views["blue"].half_size[0] == 0.04
