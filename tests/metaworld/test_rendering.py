"""Fast images: true to the stock ones, and without any effect on the physics."""

from __future__ import annotations

import gc
import re
import weakref

import numpy as np
import pytest
import torch

from rftf_torchrl import FastRenderer, ScriptedExpert
from rftf_torchrl.envs.renderer import decimated_meshes
from rftf_torchrl.metaworld.simulator import CAMERA, MetaWorldSimulator
from rftf_torchrl.metaworld.tasks import get_task

mujoco = pytest.importorskip("mujoco")

pytestmark = [pytest.mark.metaworld, pytest.mark.slow]

ARRAYS = ("mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_facenum", "mesh_vert")


@pytest.fixture
def make_simulator(pictures):
    simulators = []

    def make(task="drawer-open", seed=1, **arguments):
        simulators.append(MetaWorldSimulator(get_task(task), "train", **arguments))
        simulators[-1].reset(seed)
        return simulators[-1]

    yield make
    for simulator in simulators:
        simulator.close()


@pytest.fixture
def draw():
    """One image by a renderer of its own."""

    def draw(simulator, **arguments):
        renderer = FastRenderer(simulator.model, 64, CAMERA, flip=True, **arguments)
        picture = renderer.render(simulator.data)
        renderer.close()
        return picture.astype(float)

    return draw


def test_rendering_and_decimation_do_not_touch_the_physics(make_simulator):
    drawn, never_drawn = make_simulator(), make_simulator(render=False)
    expert = ScriptedExpert(get_task("drawer-open"))
    assert np.array_equal(drawn.state, never_drawn.state)
    for _ in range(30):
        drawn.picture(32)
        action = expert.action(never_drawn.state)
        drawn.step(action)
        never_drawn.step(action)
        assert np.array_equal(drawn.state, never_drawn.state)
        assert np.array_equal(drawn.data.qpos, never_drawn.data.qpos)
        assert np.array_equal(drawn.data.qvel, never_drawn.data.qvel)


def test_meshes_are_decimated_inside_the_block_only(make_simulator):
    model = make_simulator(render=False).model
    before = {name: getattr(model, name).copy() for name in ARRAYS}
    with decimated_meshes(model, 0.01):
        faces = model.mesh_facenum.sum()
    assert faces < 0.5 * before["mesh_facenum"].sum()
    assert all(np.array_equal(getattr(model, name), before[name]) for name in ARRAYS)
    with pytest.raises(KeyError), decimated_meshes(model, 0.01):
        raise KeyError
    assert all(np.array_equal(getattr(model, name), before[name]) for name in ARRAYS)
    with decimated_meshes(model, 0.0):
        assert np.array_equal(model.mesh_facenum, before["mesh_facenum"])


@pytest.mark.parametrize("task", ["drawer-open", "coffee-button", "shelf-place"])
def test_the_picture_is_close_to_the_stock_one(make_simulator, draw, task):
    """Without the background: measured 0.7 to 1.0 for the meshes, 11 to 13 with the shadows."""
    simulator = make_simulator(task)
    fast = draw(simulator)
    foreground = fast.sum(0) > 0
    assert 0.6 < foreground.mean() < 0.9
    for reference, bound in (({"cell": 0.0}, 2.0), ({"cell": 0.0, "effects": True}, 20.0)):
        difference = np.abs(fast - draw(simulator, **reference)).mean(0)
        assert 0.0 < difference[foreground].mean() < bound


def test_the_first_picture_shows_the_scene_of_its_episode(make_simulator):
    """One simulator step without motion must not make the drawer jump."""
    simulator = make_simulator(seed=3)
    first = simulator.picture(64).astype(float)
    simulator.step(np.zeros(4))
    assert np.abs(simulator.picture(64) - first).mean() < 0.5
    simulator.reset(4)
    assert np.abs(simulator.picture(64) - first).mean() > 0.5


@pytest.mark.slow
def test_the_goal_marker_is_drawn_where_nothing_else_tells_the_goal(make_simulator, draw):
    with_marker = make_simulator("push")
    assert np.array_equal(with_marker.picture(64), draw(with_marker))
    without = make_simulator("drawer-open")
    hidden = draw(without, hidden_sites=("goal",))
    assert np.array_equal(without.picture(64), hidden)
    assert (draw(without) != hidden).any()
    assert without.model.site("goal").rgba[3] == 1.0


def test_the_same_picture_at_any_size(make_env, pictures):
    env = make_env(image_size=32)
    data = env.reset()
    small, large = env.picture(32), env.picture(96)
    assert (small == data["observation", "image"]).all()
    pooled = torch.nn.functional.avg_pool2d(large.float(), 3)
    assert (pooled - small.float()).abs().mean() < 10.0
    assert large.shape == (3, 96, 96)


def test_a_renderer_that_becomes_garbage_while_another_draws(make_simulator, draw, monkeypatch):
    simulator = make_simulator()
    expected = draw(simulator)
    renderer = FastRenderer(simulator.model, 64, CAMERA, flip=True)
    dropped = FastRenderer(simulator.model, 64, CAMERA)
    dropped.itself = dropped
    found = weakref.ref(dropped)
    del dropped
    update = mujoco.mjv_updateScene

    def collect_garbage(*arguments):
        gc.collect()
        update(*arguments)

    monkeypatch.setattr(mujoco, "mjv_updateScene", collect_garbage)
    assert found() is not None
    picture = renderer.render(simulator.data)
    assert found() is None
    assert np.array_equal(picture, expected)
    monkeypatch.undo()
    assert np.array_equal(renderer.render(simulator.data), expected), "and once it is freed"
    renderer.close()


def test_a_closed_renderer(make_simulator):
    renderer = FastRenderer(make_simulator().model, 16, CAMERA)
    renderer.close()
    renderer.close()
    with pytest.raises(RuntimeError, match=r"^this renderer is closed$"):
        renderer.render(None)


def test_unknown_camera(make_simulator):
    with pytest.raises(ValueError, match=re.escape("unknown camera 'no' in this MuJoCo model")):
        FastRenderer(make_simulator().model, 16, "no")
