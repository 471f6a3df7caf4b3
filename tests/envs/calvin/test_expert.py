"""The scripted expert: its maths without the simulator, and some tasks with it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rftf_torchrl.envs.calvin.expert import CalvinExpert, feasible, scene_geometry, walk_chain
from rftf_torchrl.envs.calvin.expert.grasping import grasp_height, grasp_yaw, shelf_yaw
from rftf_torchrl.envs.calvin.expert.motions import OPEN, near_yaw
from rftf_torchrl.envs.calvin.expert.places import drawer_spot, shelf_spot, uncovering
from rftf_torchrl.envs.calvin.expert.servo import Servo, Target, tool, wrap
from rftf_torchrl.envs.calvin.expert.view import BlockView, block_views
from rftf_torchrl.envs.calvin.scenes import training_scene
from rftf_torchrl.envs.calvin.sequences import starting_states, training_sequences
from rftf_torchrl.envs.calvin.tasks import TASKS

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


class TestServo:
    def drive(self, servo, target, steps, follow=0.5):
        """A hand that goes a share of the way to the stored target at each step."""
        pose = np.concatenate([np.zeros(3), tool(1.5)])
        stored, actions = pose.copy(), []
        for _ in range(steps):
            action = servo.action(target, pose[:3], pose[3:])
            stored = stored + action[:6] * [0.02, 0.02, 0.02, 0.05, 0.05, 0.05]
            pose = pose + follow * (stored - pose)
            actions.append(action)
        return pose, stored, np.array(actions)

    def test_arrives_without_overshoot_and_within_the_action_box(self):
        target = Target(np.array([0.2, -0.1, 0.05]), tool(1.8), 1.0)
        pose, _, actions = self.drive(Servo(leak=0.0), target, 60)
        np.testing.assert_allclose(pose[:3], target.position, atol=1e-4)
        np.testing.assert_allclose(wrap(pose[3:] - target.euler), 0, atol=1e-3)
        assert np.abs(actions).max() <= 1.0

    def test_a_long_way_is_straight(self):
        target = Target(np.array([0.4, -0.2, 0.1]), tool(1.5), 1.0)
        action = Servo().action(target, np.zeros(3), tool(1.5))
        np.testing.assert_allclose(action[:3], [1.0, -0.5, 0.25])

    def test_speed_bounds_the_action(self):
        target = Target(np.array([0.4, 0.0, 0.0]), tool(1.5), 1.0, speed=0.3)
        assert Servo().action(target, np.zeros(3), tool(1.5))[0] == pytest.approx(0.3)

    def test_a_blocked_hand_does_not_wind_up(self):
        target = Target(np.array([0.4, 0.0, 0.0]), tool(1.5), -1.0)
        _, stored, _ = self.drive(Servo(slack=2.5, leak=0.0), target, 200, follow=0.0)
        assert stored[0] == pytest.approx(2.5 * 0.02)

    def test_angles_take_the_short_way(self):
        euler = np.array([-3.1, 0.0, 1.5])
        action = Servo().action(Target(np.zeros(3), tool(1.5), 1.0), np.zeros(3), euler)
        assert -1 < action[3] < 0

    def test_a_hand_that_was_reset_elsewhere_starts_anew(self):
        target = Target(np.array([0.4, 0.0, 0.0]), tool(1.5), 1.0)
        servo, fresh = Servo(), Servo()
        for _ in range(20):
            servo.action(target, np.zeros(3), tool(1.5))
        elsewhere = np.array([0.0, 0.3, 0.2])
        np.testing.assert_array_equal(
            servo.action(target, elsewhere, tool(1.5)), fresh.action(target, elsewhere, tool(1.5))
        )

    @pytest.mark.parametrize(("command", "expected"), [(1.0, 1.0), (-1.0, -1.0), (0.3, 1.0)])
    def test_the_gripper_is_one_of_two_numbers(self, command, expected):
        action = Servo().action(Target(np.zeros(3), tool(1.5), command), np.zeros(3), tool(1.5))
        assert action[6] == expected


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


HELD = {"red": [contact(ROBOT, 10)]}
IN_DRAWER = {"red": [contact(TABLE, 3)]}
ON_SHELF = {"red": [contact(TABLE, 6)]}
STACKED = {"red": [contact(BLUE)], "blue": [contact(TABLE), contact(RED)]}

FEASIBLE = [
    ("open_drawer", {}, {"drawer": 0.22}),
    ("move_slider_left", {}, {"slider": 0.28}),
    ("lift_red_block_table", {}, {"contacts": IN_DRAWER}),
    ("lift_red_block_drawer", {"contacts": IN_DRAWER}, {}),
    ("lift_red_block_slider", {"contacts": ON_SHELF}, {}),
    ("push_red_block_left", {}, {"contacts": HELD}),
    ("turn_on_led", {"led": 0}, {"led": 1}),
    ("turn_off_led", {"led": 1}, {"led": 0}),
    ("turn_off_lightbulb", {"lightbulb": 1}, {"lightbulb": 0}),
    ("place_in_slider", {"contacts": HELD, "robot": [RED]}, {}),
    (
        "place_in_drawer",
        {"contacts": HELD, "robot": [RED], "drawer": 0.2},
        {"contacts": HELD, "robot": [RED], "drawer": 0.0},
    ),
    ("place_in_slider", {"contacts": HELD, "robot": [RED]}, {"contacts": HELD, "robot": [RED, 1]}),
    ("push_into_drawer", {"drawer": 0.2}, {"drawer": 0.0}),
    ("unstack_block", {"contacts": STACKED}, {}),
]


@pytest.mark.parametrize(("task", "can", "cannot"), FEASIBLE)
def test_feasible(task, can, cannot):
    assert feasible(task, an_info(**can))
    assert not feasible(task, an_info(**cannot))


@pytest.mark.parametrize("scene", "ABCD")
def test_feasible_answers_for_every_task(scene):
    answers = {task: feasible(task, an_info(), scene) for task in TASKS}
    assert answers["move_slider_left"]
    assert not answers["move_slider_right"]


def test_feasible_refuses_an_unknown_task():
    with pytest.raises(ValueError, match="unknown CALVIN task 'fly'"):
        feasible("fly", an_info())


class StandIn(SimpleNamespace):
    """What the expert reads of a simulator, at rest."""

    def __init__(self):
        robot = np.zeros(15)
        robot[:7], robot[14] = [0.03, -0.23, 0.57, 3.1, 0.0, 1.5, 0.08], 1.0
        super().__init__(scene="D", robot_obs=robot, scene_obs=np.zeros(24), info=an_info())


class TestExpert:
    @pytest.mark.parametrize("task", TASKS)
    def test_every_task_begins_with_a_lawful_action(self, task):
        expert, simulator = CalvinExpert(), StandIn()
        expert.start(task, simulator)
        action = expert.action(simulator)
        assert action.shape == (7,)
        assert action.dtype == np.float64
        assert np.abs(action).max() <= 1.0
        assert action[6] in (-1.0, 1.0)

    def test_pushes_move_the_arm_only_and_follow_the_seed(self):
        meant = np.array([0.1, 0.0, -0.1, 0.0, 0.2, 0.0, -1.0])

        def executed(**arguments):
            expert = CalvinExpert(**arguments)
            return np.stack([expert.disturb(meant) for _ in range(2000)])

        pushed = executed(noise=0.2, seed=1)
        np.testing.assert_array_equal(pushed, executed(noise=0.2, seed=1))
        np.testing.assert_array_equal(executed(), np.tile(meant, (2000, 1)))
        assert np.abs(executed(noise=2.0)).max() == 1.0
        assert np.all(pushed[:, 6] == -1.0)
        offsets = (pushed - meant)[:, :6]
        away = np.any(offsets != 0, axis=1)
        starts = np.flatnonzero(np.diff(away.astype(int)) == 1) + 1
        assert 0.1 < away.mean() < 0.18  # 4 of 29 steps
        assert all(np.ptp(offsets[start : start + 4], axis=0).max() == 0 for start in starts[:-1])
        assert 0.15 < offsets[starts].std() < 0.25

    def test_the_servo_counts_a_push_as_moved(self):
        hand, euler = np.zeros(3), np.zeros(3)
        target = Target(np.array([0.02, 0.0, 0.0]), euler, OPEN)
        plain, told = Servo(), Servo()
        for servo in (plain, told):
            servo.action(target, hand, euler)
        told.also_moved(np.array([10.0, 0, 0, 0, 0, 0]))
        assert told.action(target, hand, euler)[0] < plain.action(target, hand, euler)[0]

    def test_unknown_task(self):
        expert, simulator = CalvinExpert(), StandIn()
        with pytest.raises(ValueError, match="unknown CALVIN task 'fly'"):
            expert.start("fly", simulator)

    def test_negative_noise(self):
        with pytest.raises(ValueError, match=re.escape("noise must not be negative, got -0.1")):
            CalvinExpert(noise=-0.1)

    def test_action_before_start(self):
        message = "call start(task, simulator) before action(simulator)"
        with pytest.raises(RuntimeError, match=re.escape(message)):
            CalvinExpert().action(StandIn())


@pytest.fixture(scope="module")
def simulators(requires_calvin):
    from rftf_torchrl.envs.calvin import CalvinSimulator

    made = {}

    def get(scene):
        if scene not in made:
            made[scene] = CalvinSimulator(scene)
        return made[scene]

    yield get
    for simulator in made.values():
        simulator.close()


@pytest.mark.calvin
class TestInCalvin:
    @pytest.mark.parametrize(
        ("scene", "task"),
        [
            ("D", "rotate_blue_block_left"),
            ("D", "push_pink_block_right"),
            ("D", "turn_on_lightbulb"),
            ("D", "turn_off_lightbulb"),
            ("D", "turn_off_led"),
            ("D", "push_into_drawer"),
            ("A", "close_drawer"),
            ("A", "lift_pink_block_slider"),
            ("B", "move_slider_left"),
            ("B", "lift_red_block_table"),
            ("C", "open_drawer"),
            ("C", "turn_on_lightbulb"),
        ],
    )
    def test_a_task(self, simulators, scene, task):
        simulator = simulators(scene)
        simulator.reset(*training_scene(starting_states(task)[-1], 3, scene))
        assert feasible(task, simulator.info, scene)
        (steps,) = walk_chain(simulator, CalvinExpert(), [task], max_steps=150)
        assert 5 < steps < 150

    def test_chains(self, simulators):
        simulator = simulators("D")
        done, seen = 0, []
        for seed, chain in enumerate(training_sequences(2, 6)):
            simulator.reset(*training_scene(chain.initial_state, seed))
            steps = walk_chain(
                simulator,
                CalvinExpert(noise=0.05, seed=seed),
                chain.tasks,
                on_step=lambda index, task, action: seen.append((index, task, action)),
            )
            done += len(steps)
        assert done >= 27
        assert {index for index, *_ in seen} == set(range(5))

    def test_a_walk_repeats_bitwise(self, simulators):
        simulator = simulators("D")
        runs = []
        for _ in range(2):
            actions = []
            simulator.reset(*training_scene(starting_states("open_drawer")[0], 5))
            walk_chain(
                simulator,
                CalvinExpert(noise=0.1, seed=4),
                ["open_drawer"],
                on_step=lambda index, task, action, actions=actions: actions.append(action),
            )
            runs.append(np.array(actions))
        np.testing.assert_array_equal(*runs)

    def test_a_failed_task_ends_the_walk(self, simulators):
        simulator = simulators("D")
        simulator.reset(*training_scene(starting_states("open_drawer")[0], 5))
        tasks = ["close_drawer", "open_drawer"]
        assert walk_chain(simulator, CalvinExpert(), tasks, max_steps=20) == []
