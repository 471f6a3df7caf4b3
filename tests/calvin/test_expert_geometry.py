"""The table as the expert knows it: handles, doors, and places for blocks."""

from __future__ import annotations

import re

import numpy as np
import pytest
from _expert_views import UIDS, a_block

from rftf_torchrl import scene_geometry
from rftf_torchrl.calvin.expert.places import drawer_spot, shelf_spot, uncovering


class TestGeometry:
    def test_handles_move_with_their_joints(self):
        geometry = scene_geometry("D")
        np.testing.assert_allclose(geometry.slider_handle(0.28), [-0.24, 0.016, 0.569])
        np.testing.assert_allclose(geometry.drawer_handle(0.2), [0.18, -0.45, 0.36])
        rise = geometry.switch(0.088) - geometry.switch(0.0)
        np.testing.assert_allclose(rise, [0, 0.044, 0.088 * np.cos(np.pi / 6)])

    @pytest.mark.parametrize("scene", "ABCD")
    def test_the_door_hides_half_of_the_shelf_at_each_end(self, scene):
        geometry = scene_geometry(scene)
        right = geometry.door_span(0.0)
        left = geometry.door_span(geometry.slider_limit)
        assert left[1] <= geometry.shelf_x + 0.05
        assert right[0] >= geometry.shelf_x - 0.02

    @pytest.mark.parametrize("scene", "ABCD")
    def test_a_scene_has_a_small_a_middle_and_a_big_block(self, scene):
        lengths = scene_geometry(scene).block_lengths
        assert sorted(lengths.values()) == [0.02, 0.028, 0.04]
        assert set(lengths) == set(UIDS)

    def test_unknown_scene(self):
        message = "scene must be 'A', 'B', 'C' or 'D', got 'E'"
        with pytest.raises(ValueError, match=re.escape(message)):
            scene_geometry("E")


class TestPlaces:
    geometry = scene_geometry("D")

    def test_what_is_in_the_open_stays(self):
        assert uncovering(self.geometry, 0.28, 0.07) is None
        assert uncovering(self.geometry, 0.0, -0.24) is None

    def test_the_door_goes_to_the_other_side(self):
        assert uncovering(self.geometry, 0.0, 0.07) == 0.28
        assert uncovering(self.geometry, 0.15, -0.24) == 0.0

    @pytest.mark.parametrize("slider", [0.0, 0.28])
    def test_a_block_is_put_beside_the_door(self, slider):
        value, x = shelf_spot(self.geometry, slider, {}, "pink")
        low, high = self.geometry.door_span(slider)
        assert value is None
        assert not low < x < high

    def test_a_block_is_put_beside_another(self):
        there = a_block(position=(-0.24, 0.09, 0.46), links=["plank_link"])
        value, x = shelf_spot(self.geometry, 0.0, {"pink": there}, "red")
        assert abs(x + 0.24) > 0.07 or value is not None

    @pytest.mark.parametrize("drawer", [0.12, 0.22])
    def test_a_block_falls_into_the_drawer(self, drawer):
        other = a_block(position=(0.18, -0.27, 0.36), links=["drawer_link"])
        x, y = drawer_spot(self.geometry, drawer, {"pink": other}, "red")
        low, high = self.geometry.drawer_span()
        assert low < x < high
        assert self.geometry.drawer_front(drawer) < y < -0.18
        assert np.hypot(x - 0.18, y + 0.27) > 0.06
