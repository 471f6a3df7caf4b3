"""CalvinSimulator against calvin_env itself, and against itself after whatever ran before."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from direct import EVERY, run_directly
from fake_calvin import TRACE

from rftf_torchrl import (
    BLOCK_ORDER,
    CalvinExpert,
    CalvinSimulator,
    InitialState,
    SimulatorCrashedError,
    default_states,
    training_scene,
)
from rftf_torchrl.calvin.settings import env_settings
from rftf_torchrl.calvin.tasks import TASKS

pytestmark = pytest.mark.calvin

UP = np.array([0, 0, 1.0, 0, 0, 0, 1])


@pytest.fixture
def make_simulator():
    simulators = []

    def make(scene="D"):
        simulators.append(CalvinSimulator(scene))
        return simulators[-1]

    yield make
    for simulator in simulators:
        simulator.close()


def pushes(count, seed):
    """Long clumsy moves down into the table, the blocks and the furniture."""
    rng = np.random.default_rng(seed)
    actions = np.repeat(rng.uniform(-1, 1, (count // 5, 7)), 5, axis=0)
    actions[:, 2] = np.clip(actions[:, 2] - 0.2, -1, 1)
    actions[:, 3:6] *= 0.2
    actions[:, 6] = np.where(np.arange(count) // 20 % 2, -1, 1)
    return actions


def play(simulator, start, actions):
    """State vectors [T + 1, 39] and the last images."""
    simulator.reset(*start)
    states = [np.concatenate([simulator.robot_obs, simulator.scene_obs])]
    for action in actions:
        simulator.step(action)
        states.append(np.concatenate([simulator.robot_obs, simulator.scene_obs]))
    return np.stack(states), simulator.picture(48), simulator.wrist_picture(24), simulator.depth(48)


def same(first, second):
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def expert_walk(simulator, start, tasks):
    """What the expert does for tasks in a row, and the steps at which each begins."""
    simulator.reset(*start)
    expert, actions, starts = CalvinExpert(), [], []
    for task in tasks:
        starts.append(len(actions))
        expert.start(task, simulator)
        begin = simulator.info
        for _ in range(120):
            actions.append(expert.action(simulator))
            simulator.step(actions[-1])
            if simulator.achieved(begin, {task}):
                break
    return actions, starts


WALKS = {
    "D": ("close_drawer", "rotate_pink_block_left", "turn_on_led"),
    "A": ("turn_on_lightbulb", "close_drawer"),
}
CONDITION = InitialState(0, 0, "left", "open", "table", "slider_right", "table")


@pytest.mark.parametrize("scene", ["D", "A"])
def test_states_pictures_and_oracle_are_calvin_envs_own(make_simulator, tmp_path, scene):
    """An expert's subtasks, then clumsy moves with contacts, in a process that runs calvin_env."""
    start = training_scene(CONDITION, 2, scene)
    simulator = make_simulator(scene)
    actions, starts = expert_walk(simulator, start, WALKS[scene])
    starts.append(len(actions))
    actions.extend(pushes(100, 0))
    direct = run_directly(tmp_path, scene, start, actions, starts)

    simulator.reset(*start)
    begin, found = simulator.info, []
    for step, action in enumerate(actions):
        if step in starts:
            begin = simulator.info
        simulator.step(action)
        found.append(" ".join(sorted(simulator.achieved(begin, TASKS))))
        assert np.array_equal(simulator.robot_obs, direct["robot_obs"][step + 1])
        assert np.array_equal(simulator.scene_obs, direct["scene_obs"][step + 1])
        if (step + 1) % EVERY == 0:
            frame = step // EVERY
            for ours, theirs in (
                (simulator.picture(200), direct["rgb_static"][frame].transpose(2, 0, 1)),
                (simulator.wrist_picture(84), direct["rgb_gripper"][frame].transpose(2, 0, 1)),
                (simulator.depth(200), direct["depth_static"][frame]),
                (simulator.wrist_depth(84), direct["depth_gripper"][frame]),
            ):
                assert np.array_equal(ours, theirs)
    assert found == direct["done"].tolist()
    assert set(WALKS[scene]) <= set(" ".join(found).split())


def test_a_reset_is_bitwise_whatever_ran_before(make_simulator):
    simulator = make_simulator()
    draw = default_states("train")
    start, other = draw("turn_on_led", 1), draw("close_drawer", 5)
    actions = pushes(120, 1)
    first = play(simulator, start, actions)
    different = play(simulator, other, pushes(80, 2))
    again = play(simulator, start, actions)
    play(simulator, (None, None), pushes(60, 3))
    simulator.reset(*start)
    play(simulator, start, actions[:30])
    third = play(simulator, start, actions)
    fresh = play(make_simulator(), start, actions)
    assert np.abs(first[0][0, 15:] - first[0][-1, 15:]).max() > 0.01
    assert not np.array_equal(first[0][0], different[0][0])
    assert same(first, again)
    assert same(first, third)
    assert same(first, fresh)


def test_two_simulators_in_one_process_do_not_disturb_each_other(make_simulator):
    """States and images of both cameras are those of a simulator that has the process alone."""
    starts = {scene: default_states("train", scene)("turn_on_led", 1) for scene in "BD"}
    actions, expected = pushes(60, 1), {}
    for scene, start in starts.items():
        alone = make_simulator(scene)
        expected[scene] = play(alone, start, actions)
        alone.close()
    assert not np.array_equal(expected["B"][1], expected["D"][1])

    first, beside = make_simulator("D"), make_simulator("B")
    for _ in range(2):
        assert same(play(beside, starts["B"], actions), expected["B"])
        assert same(play(first, starts["D"], actions), expected["D"])
    for simulator in (first, beside):
        simulator.reset(*starts[simulator.scene])
    for action in actions:
        first.step(action)
        beside.step(action)
    assert np.array_equal(first.picture(48), expected["D"][1])
    assert np.array_equal(beside.wrist_picture(24), expected["B"][2])
    first.close()
    assert same(play(beside, starts["B"], actions), expected["B"])
    assert same(play(make_simulator("D"), starts["D"], actions), expected["D"])


def test_without_arguments_a_reset_is_always_the_same(make_simulator):
    simulator = make_simulator()
    first = play(simulator, (None, None), [])
    simulator.reset(None, default_states("train")("turn_on_led", 1)[1])
    assert same(play(simulator, (None, None), []), first)
    assert simulator.scene_obs[:6].round(3).tolist() == [0] * 6


def test_the_last_gripper_action_is_part_of_the_state(make_simulator):
    simulator = make_simulator()
    robot_obs, scene_obs = default_states("train")("turn_on_led", 1)
    robot_obs[14] = -1.0
    simulator.reset(robot_obs, scene_obs)
    assert simulator.robot_obs[14] == -1.0
    simulator.step(UP)
    assert simulator.robot_obs[14] == 1.0
    simulator.reset(None, scene_obs)
    assert simulator.robot_obs[14] == 1.0


def test_the_recorded_trace_is_what_the_simulator_does(make_simulator):
    """That of the tests without a simulator; not to the bit, as it may be another machine's."""
    start = TRACE["robot_obs"][0], TRACE["scene_obs"][0]
    simulator = make_simulator()
    simulator.reset(*default_states("train")("close_drawer", 0))
    begin, drawer = simulator.info, []
    assert np.allclose(simulator.scene_obs, start[1], atol=1e-4)
    for action in TRACE["actions"]:
        assert not simulator.achieved(begin, {"close_drawer"})
        simulator.step(action)
        drawer.append(simulator.scene_obs[1])
    assert simulator.achieved(begin, {"close_drawer", "open_drawer"}) == {"close_drawer"}
    assert np.allclose(drawer, TRACE["scene_obs"][1:, 1], atol=1e-3)


@pytest.mark.parametrize("scene", ["A", "B", "C", "D"])
def test_the_blocks_are_in_the_order_that_is_documented(make_simulator, scene):
    simulator = make_simulator(scene)
    assert simulator.blocks == BLOCK_ORDER[scene]
    info = simulator.info["scene_info"]["movable_objects"]
    positions = simulator.block_positions()
    assert set(positions) == {"red", "blue", "pink"}
    for name, position in positions.items():
        assert np.array_equal(position, info[f"block_{name}"]["current_pos"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scene", ["A", "B", "C", "D"])
def test_the_settings_are_those_that_hydra_composes(requires_calvin, scene):
    pytest.importorskip("hydra_plugins.hydra_colorlog", reason="calvin_env's logging is missing")
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    root = requires_calvin
    with initialize_config_dir(str(root / "conf"), version_base="1.1"):
        config = compose(
            "config_data_collection",
            overrides=[
                f"scene=calvin_scene_{scene}",
                "use_vr=false",
                "env.use_egl=false",
                "env.use_scene_info=true",
                "cameras=static_and_gripper",
            ],
        )
    composed = OmegaConf.to_container(config.env, resolve=True)
    ours = OmegaConf.to_container(OmegaConf.create(env_settings(root, scene)))
    for name in ("_target_", "_recursive_", "cameras"):
        composed.pop(name)
    ours.pop("cameras")
    assert ours == composed


def set_to(index, value, length=7):
    vector = np.zeros(length)
    vector[-1] = 1.0
    vector[index] = value
    return vector


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(6), "action must have the shape (7,), got (6,)"),
        (np.zeros((1, 7)), "action must have the shape (7,), got (1, 7)"),
        (set_to(3, np.nan), "action[3] is not finite: nan"),
        (set_to(1, -1.5), "action[1] must be in [-1, 1], got -1.5: clip it"),
        (set_to(6, 0.5), "action[6], the gripper, must be 1 (open) or -1 (close), got 0.5"),
        (np.zeros(7, dtype=int), "action[6], the gripper, must be 1 (open) or -1 (close), got 0.0"),
    ],
)
def test_bad_actions(simulator, action, message):
    before = simulator.robot_obs
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        simulator.step(action)
    assert simulator.robot_obs is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(14), None), "robot_obs must have the shape (15,), got (14,)"),
        ((None, np.zeros(23)), "scene_obs must have the shape (24,), got (23,)"),
        ((set_to(2, np.inf, 15), None), "robot_obs[2] is not finite: inf"),
        (
            (None, set_to(4, 0.5, 24)),
            "scene_obs[4:6], lightbulb and led, must be 0 or 1, got [0.5, 0.0]",
        ),
    ],
)
def test_bad_states(simulator, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        simulator.reset(*arguments)


def test_other_bad_arguments(simulator):
    with pytest.raises(ValueError, match=r"^scene must be 'A', 'B', 'C' or 'D', got 'E'$"):
        CalvinSimulator("E")
    with pytest.raises(ValueError, match=r"^unknown CALVIN task 'fly'; choose from rotate_red_"):
        simulator.achieved(simulator.info, {"fly", "open_drawer"})
    with pytest.raises(ValueError, match=r"^the size of an image must be at least 1, got 0$"):
        simulator.picture(0)


def test_an_integer_action_counts_as_a_number(simulator):
    simulator.step(np.array([0, 0, 1, 0, 0, 0, 1]))
    assert simulator.robot_obs[14] == 1.0


@pytest.fixture(scope="module")
def simulator(requires_calvin):
    """One for tests that leave it as it is."""
    simulator = CalvinSimulator("D")
    yield simulator
    simulator.close()


def test_a_state_that_is_not_finite_is_a_crash(make_simulator, monkeypatch):
    simulator = make_simulator()
    monkeypatch.setattr(simulator._env.scene, "get_obs", lambda: np.full(24, np.nan))
    with pytest.raises(SimulatorCrashedError, match=r"^CALVIN scene D: the state is not finite$"):
        simulator.step(UP)
    monkeypatch.undo()
    simulator.reset()
    simulator.step(UP)
    assert np.isfinite(simulator.scene_obs).all()


def test_a_dead_physics_engine_is_a_crash(make_simulator):
    import pybullet

    simulator = make_simulator()
    pybullet.disconnect(physicsClientId=simulator._env.cid)
    for call in (lambda: simulator.step(UP), simulator.reset, lambda: simulator.picture(8)):
        with pytest.raises(SimulatorCrashedError, match=r"^CALVIN scene D: Not connected"):
            call()
    simulator.close()


def test_a_closed_simulator(make_simulator):
    simulator = make_simulator()
    simulator.close()
    simulator.close()
    with pytest.raises(RuntimeError, match=r"^this simulator is closed; make a new one$"):
        simulator.step(UP)


def megabytes():
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * 4096 / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_stays_flat_over_500_resets(make_simulator):
    simulator = make_simulator()
    draw = default_states("train")
    used = []
    for episode in range(500):
        simulator.reset(*draw("turn_on_led", episode))
        simulator.step(UP)
        if episode % 50 == 49:
            simulator.picture(32)
            used.append(megabytes())
    assert max(used[1:]) - used[0] < 10.0
