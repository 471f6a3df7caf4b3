"""The geometry of LIBERO's expert: where to hold, how to turn, what is in the way."""

from __future__ import annotations

import numpy as np
import pytest

from rftf_torchrl.libero.expert.carrying import escape
from rftf_torchrl.libero.expert.furniture import outermost
from rftf_torchrl.libero.expert.grasping import find_grasps
from rftf_torchrl.libero.expert.motions import corridor_top
from rftf_torchrl.libero.expert.servo import (
    CLOSED,
    Target,
    downward,
    nearest,
    pointing,
    rotation_vector,
    servo,
)

NOTHING = np.zeros((0, 3))
BASE = np.zeros(3)


def box(low, high, spacing=0.01):
    """Points in a box."""
    edges = [np.arange(a, b + spacing / 2, spacing) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*edges), -1).reshape(-1, 3)


def bowl(radius=0.05, height=0.05):
    """Points on the wall of a bowl around the origin."""
    angles = np.arange(0, 2 * np.pi, np.pi / 36)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1) * radius
    return np.concatenate([np.insert(ring, 2, z, 1) for z in np.linspace(0, height, 6)])


def test_a_box_is_held_across_its_narrow_side():
    best = find_grasps(box((0.2, 0.1, 0.9), (0.3, 0.14, 0.95)), NOTHING, 0.3, BASE)[0]
    assert best.position[:2] == pytest.approx([0.25, 0.12], abs=1e-9)
    assert abs(np.sin(best.yaw)) > 0.99
    assert 0.9 < best.position[2] < 0.95


def test_the_nearer_of_two_equal_sides_is_taken():
    cube = box((-0.02, -0.02, 0), (0.02, 0.02, 0.05))
    assert find_grasps(cube, NOTHING, 0.1, BASE)[0].yaw == pytest.approx(0.0, abs=0.11)
    assert find_grasps(cube, NOTHING, 1.5, BASE)[0].yaw == pytest.approx(np.pi / 2, abs=0.11)


def test_a_wide_thing_is_held_by_its_rim():
    best = find_grasps(bowl() + np.array([0.1, 0.0, 0.9]), NOTHING, 0.0, BASE)[0]
    assert np.linalg.norm(best.position[:2] - [0.1, 0.0]) == pytest.approx(0.044, abs=0.002)
    assert best.position[2] == pytest.approx(0.93)
    inward = [0.1, 0.0] - best.position[:2]
    along = abs(inward @ [np.cos(best.yaw), np.sin(best.yaw)]) / np.linalg.norm(inward)
    assert along == pytest.approx(1.0)


def test_the_rim_of_a_leaning_bowl_is_all_of_it():
    """Where it leans by 16 degrees, its highest points are half of the rim."""
    tilt = np.radians(16)
    lean = np.array(
        [[np.cos(tilt), 0.0, np.sin(tilt)], [0.0, 1.0, 0.0], [-np.sin(tilt), 0.0, np.cos(tilt)]]
    )
    points = bowl() @ lean.T
    best = find_grasps(points, NOTHING, np.pi / 2, BASE, up=lean[:, 2])[0]
    middle = 0.05 * lean[:2, 2]
    out = best.position[:2] - middle
    assert np.linalg.norm(out) == pytest.approx(0.044, abs=0.002)
    assert abs(out @ [np.cos(best.yaw), np.sin(best.yaw)]) == pytest.approx(np.linalg.norm(out))
    rim = points[points @ lean[:, 2] > 0.049]
    beside = rim[np.linalg.norm(rim[:, :2] - best.position[:2], axis=1).argmin()]
    assert best.position[2] == pytest.approx(beside[2] - 0.02, abs=0.002)


def test_a_far_thing_is_held_where_the_arm_reaches_easily():
    places = [
        find_grasps(bowl() + np.array([x, 0.0, 0.9]), NOTHING, np.pi / 2, BASE)[0].position
        for x in (0.5, 0.8)
    ]
    near, far = (float(np.linalg.norm(place[:2])) for place in places)
    assert near == pytest.approx(np.hypot(0.5, 0.044), abs=0.001)
    assert far < 0.77


def test_what_stands_beside_moves_the_grasp():
    lying = box((-0.05, -0.02, 0), (0.05, 0.02, 0.04))
    beside = box((-0.005, 0.045, 0), (0.005, 0.055, 0.02))
    free = find_grasps(lying, NOTHING, np.pi / 2, BASE)[0]
    best = find_grasps(lying, beside, np.pi / 2, BASE)[0]
    assert free.position[0] == pytest.approx(0.0)
    assert best.cost > free.cost
    assert abs(best.position[0]) > 0.02 or abs(np.cos(best.yaw)) > 0.2


def test_what_a_thing_lies_on_is_no_obstacle():
    lying = box((-0.05, -0.02, 0.9), (0.05, 0.02, 0.92))
    table = box((-0.3, -0.3, 0.86), (0.3, 0.3, 0.9), 0.02)
    above, free = (find_grasps(lying, around, 1.0, BASE)[0] for around in (table, NOTHING))
    assert above.cost == free.cost
    assert above.position == pytest.approx(free.position)


def test_a_hand_does_not_wind_up():
    home = downward(0.3)
    for yaw in (0.3, 1.4, -0.8):
        for here in (home, downward(yaw + np.pi)):
            assert nearest(home, here, downward(yaw)) == pytest.approx(downward(yaw))
            assert nearest(home, here, downward(yaw + np.pi)) == pytest.approx(downward(yaw))


def test_a_hand_that_holds_something_does_not_turn_round():
    """At a right angle from home either way round is as near, and the hand keeps to its own."""
    home = downward(0.0)
    for yaw in (1.5, 1.6, -1.5, -1.6):
        for wanted in (yaw, yaw + np.pi):
            assert nearest(home, downward(yaw), downward(wanted)) == pytest.approx(downward(yaw))


def test_a_hand_that_points_is_a_rotation():
    rotation = pointing(np.array([0.3, -2.0, 0.4]), np.array([0.0, 0.1, 1.0]))
    assert rotation.T @ rotation == pytest.approx(np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert rotation_vector(rotation.T @ rotation) == pytest.approx([0, 0, 0])


def test_actions_stay_in_bounds_and_keep_their_direction():
    far = Target(np.array([1.0, -0.5, 0.0]), downward(2.0), CLOSED, speed=0.5)
    action = servo(np.zeros(3), downward(1.0), far)
    assert action[:3] == pytest.approx([0.5, -0.25, 0.0])
    assert action[3:] == pytest.approx([0, 0, 1, 1])


def test_a_corridor_sees_only_what_is_in_it():
    points = np.array([[0.5, 0.05, 1.1], [0.5, 0.3, 2.0], [-0.4, 0.0, 3.0]])
    start, end = np.zeros(3), np.array([1.0, 0.0, 0.0])
    assert corridor_top(points, start, end, 0.1) == 1.1
    assert corridor_top(points, start, start, 0.1) == -np.inf
    assert corridor_top(NOTHING, start, end, 0.1) == -np.inf


def test_a_handle_stands_out():
    front = box((-0.1, 0.0, 0.0), (0.1, 0.01, 0.07))
    bar = box((-0.04, 0.03, 0.03), (0.04, 0.04, 0.04))
    found = outermost(np.concatenate([front, bar]), np.array([0.0, 1.0, 0.0]))
    assert np.array_equal(found, bar)


def test_a_thing_comes_out_from_under_a_drawer_the_short_way():
    held = box((0.0, 0.0, 0.9), (0.1, 0.1, 0.95))
    drawer = box((0.06, -0.5, 1.05), (0.4, 0.5, 1.1), 0.02)
    assert escape(held, drawer) == pytest.approx([-0.065, 0.0, 0.0])
    assert not escape(held, drawer + np.array([0.1, 0.0, 0.0])).any()
    assert not escape(held, drawer - np.array([0.0, 0.0, 0.5])).any()


def test_a_thing_that_nothing_frees_stays():
    held = box((0.0, 0.0, 0.9), (0.1, 0.1, 0.95))
    roof = box((-1.0, -1.0, 1.2), (1.0, 1.0, 1.2), 0.02)
    assert not escape(held, roof).any()


def test_the_place_to_go_to_counts_too():
    lying = box((-0.05, -0.02, 0), (0.05, 0.02, 0.04))
    way = np.array([0.5, 0.0, 0.1])
    beside = box((-0.005, 0.045, 0), (0.005, 0.055, 0.02)) + way
    stays, goes = (find_grasps(lying, beside, np.pi / 2, BASE, w)[0] for w in (None, way))
    assert abs(goes.position[0] - stays.position[0]) > 0.02 or goes.yaw != stays.yaw
