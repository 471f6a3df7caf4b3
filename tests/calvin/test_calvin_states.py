"""The store of states in which tasks begin."""

import re
from dataclasses import replace

import numpy as np
import pytest

from rftf_torchrl import (
    StateBank,
    initial_scene,
    initial_states,
    training_scene,
)


def make_bank(tasks=(14, 14, 2), depth=(0, 3, 1)):
    scenes = [training_scene(initial_states()[k], k) for k in range(len(tasks))]
    robot_obs, scene_obs = map(np.stack, zip(*scenes, strict=True))
    return StateBank(robot_obs, scene_obs, np.array(tasks), np.array(depth), "D")


def test_draws_are_seeded_and_of_the_task():
    bank = make_bank()
    drawn = [bank.draw("open_drawer", seed) for seed in range(20)]
    np.testing.assert_array_equal(drawn[4][1], bank.draw("open_drawer", 4)[1])
    rows = {int(np.flatnonzero((bank.scene_obs == scene).all(1))[0]) for _, scene in drawn}
    assert rows == {0, 1}
    assert bank.draw("rotate_blue_block_right", 0)[1].tolist() == bank.scene_obs[2].tolist()
    assert [bank.count(task) for task in ("open_drawer", "stack_block")] == [2, 0]
    assert len(bank) == 3


def test_a_drawn_state_is_a_copy():
    bank = make_bank()
    bank.draw("rotate_blue_block_right", 0)[1][:] = 7
    assert not (bank.scene_obs == 7).any()


def test_a_task_without_a_state():
    message = (
        "the bank has no state of task 'stack_block'; it has some of open_drawer, "
        "rotate_blue_block_right"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_bank().draw("stack_block", 0)


def test_an_unknown_task():
    with pytest.raises(ValueError, match="unknown CALVIN task 'fly'; choose from"):
        make_bank().draw("fly", 0)


def test_what_is_saved_is_loaded(tmp_path):
    bank = make_bank()
    bank.save(tmp_path / "bank.npz")
    loaded = StateBank.load(tmp_path / "bank.npz")
    assert loaded.scene == "D"
    for name in ("robot_obs", "scene_obs", "task", "depth"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(bank, name))


def with_nan(bank):
    scene_obs = bank.scene_obs.copy()
    scene_obs[1, 4] = np.nan
    return replace(bank, scene_obs=scene_obs)


def with_test_state(bank):
    scene_obs = bank.scene_obs.copy()
    scene_obs[2] = initial_scene(initial_states()[9])[1]
    return replace(bank, scene_obs=scene_obs)


BROKEN = [
    (lambda b: replace(b, scene="E"), "scene must be 'A', 'B', 'C' or 'D', got 'E'"),
    (lambda b: replace(b, task=b.task[:0]), "the bank has no state; expected at least one"),
    (
        lambda b: replace(b, robot_obs=b.robot_obs[:, :14]),
        "robot_obs must have shape (3, 15), got (3, 14)",
    ),
    (lambda b: replace(b, depth=b.depth[:2]), "depth must have shape (3,), got (2,)"),
    (lambda b: replace(b, task=np.array([0, 34, 1])), "task[1] must be in [0, 34), got 34"),
    (with_nan, "scene_obs[1] is not finite"),
    (
        with_test_state,
        "scene_obs[2] is the benchmark's initial scene 9: it must not be trained on",
    ),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_broken_banks(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        change(make_bank())


def test_a_test_state_is_refused_on_load(tmp_path):
    bank = make_bank()
    columns = {name: getattr(bank, name) for name in ("robot_obs", "scene_obs", "task", "depth")}
    columns["scene_obs"] = np.stack([initial_scene(state)[1] for state in initial_states()[:3]])
    np.savez(tmp_path / "bank.npz", scene=np.array("D"), **columns)
    with pytest.raises(ValueError, match=r"bank\.npz is not a usable .* initial scene 0: it must"):
        StateBank.load(tmp_path / "bank.npz")


@pytest.mark.parametrize("length", [0, 3, 100, -200])
def test_a_truncated_file(tmp_path, length):
    path = tmp_path / "bank.npz"
    make_bank().save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"bank\.npz is not a usable bank of states"):
        StateBank.load(path)


def test_a_damaged_file(tmp_path):
    path = tmp_path / "bank.npz"
    make_bank().save(path)
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bank\.npz is not a usable bank of states"):
        StateBank.load(path)


def test_pickles_are_not_read(tmp_path):
    path = tmp_path / "bank.npz"
    np.savez(path, scene="D", robot_obs=np.array([{}]), scene_obs=0, task=0, depth=0)
    with pytest.raises(ValueError, match=r"bank\.npz is not a usable bank of states: .*pickle"):
        StateBank.load(path)


def test_a_file_that_lacks_a_column(tmp_path):
    path = tmp_path / "bank.npz"
    np.savez(path, robot_obs=0)
    with pytest.raises(ValueError, match=r"bank\.npz is not a usable bank of states: .*scene_obs"):
        StateBank.load(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        StateBank.load(tmp_path / "bank.npz")
