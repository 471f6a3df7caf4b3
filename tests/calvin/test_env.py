"""CalvinEnv's own logic on a recorded episode: specs, images, actions, and how it ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _calvin_steps import chunk, flags, seen, start
from fake_calvin import LENGTH
from torchrl.envs import check_env_specs


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"image_size": None}, {"state": ((53,), torch.float32)}),
        (
            {"image_size": 6},
            {"state": ((11,), torch.float32), "image": ((3, 6, 6), torch.uint8)},
        ),
        (
            {"image_size": None, "wrist_size": 4},
            {"state": ((11,), torch.float32), "wrist_image": ((3, 4, 4), torch.uint8)},
        ),
        (
            {"image_size": 6, "wrist_size": 4, "depth": True, "chunk_size": 3},
            {
                "state": ((11,), torch.float32),
                "image": ((3, 6, 6), torch.uint8),
                "wrist_image": ((3, 4, 4), torch.uint8),
                "depth": ((1, 6, 6), torch.float32),
                "wrist_depth": ((1, 4, 4), torch.float32),
            },
        ),
    ],
)
def test_specs_keys_shapes_and_dtypes(make_fake_env, arguments, expected):
    env = make_fake_env(**arguments)
    check_env_specs(env)
    data = env.rollout(2)
    size = arguments.get("chunk_size")
    expected = {("observation", key): value for key, value in expected.items()} | {
        ("instruction", "tokens"): ((16,), torch.int64),
        ("instruction", "mask"): ((16,), torch.bool),
        "task_id": ((1,), torch.int64),
        "episode_seed": ((1,), torch.int64),
        "success": ((1,), torch.bool),
        "crashed": ((1,), torch.bool),
        "executed": ((size or 1,), torch.bool),
        "done": ((1,), torch.bool),
        "terminated": ((1,), torch.bool),
        "truncated": ((1,), torch.bool),
    }

    def described(data):
        return {k: (tuple(v.shape[1:]), v.dtype) for k, v in data.items(True, True)}

    assert described(data["next"]) == expected | {"reward": ((1,), torch.float32)}
    action = "action" if size is None else ("vla_action", "chunk")
    shape = (7,) if size is None else (3, 7)
    assert described(data.exclude("next")) == expected | {action: (shape, torch.float32)}
    assert data["task_id"].unique().tolist() == [15]


def test_success_in_the_middle_of_a_chunk(make_fake_env):
    """The trace of 34 actions ends with the success: the second of the fifth chunk's eight."""
    env = make_fake_env(chunk_size=8)
    data = env.rollout(20, policy=lambda td: td.update(chunk()))
    assert LENGTH == 34
    assert data.batch_size == (5,)
    assert data["next", "reward"].flatten().tolist() == [0, 0, 0, 0, 1]
    assert data["next", "executed"].sum(1).tolist() == [8, 8, 8, 8, 2]
    assert data["next", "executed"][-1].tolist() == [True] * 2 + [False] * 6
    assert flags(data["next"][-1]) == {"success", "done", "terminated"}
    frames = [0, 8, 16, 24, 32, 34]
    assert torch.equal(data["observation", "state"], torch.stack([seen(f) for f in frames[:-1]]))
    assert torch.equal(
        data["next", "observation", "state"], torch.stack([seen(f) for f in frames[1:]])
    )


def test_pictures_are_drawn_once_a_decision_and_after_the_chunk(make_fake_env):
    env = make_fake_env(chunk_size=8, image_size=2, wrist_size=2, depth=True)
    data = env.rollout(2, policy=lambda td: td.update(chunk()))
    kinds = ("picture", "depth", "wrist_picture", "wrist_depth")
    assert env.simulator.drawn == [(kind, frame) for frame in (0, 8, 16) for kind in kinds]
    for key in ("image", "depth", "wrist_image", "wrist_depth"):
        assert data["observation", key].flatten(1).unique(dim=1).tolist() == [[0], [8]]
        assert data["next", "observation", key].flatten(1).unique(dim=1).tolist() == [[8], [16]]


@pytest.mark.parametrize(
    ("arguments", "decisions"),
    [({}, 360), ({"chunk_size": 8}, 45), ({"chunk_size": 7}, 52), ({"horizon": 3}, 3)],
)
def test_the_horizon_truncates(make_fake_env, arguments, decisions):
    env = make_fake_env("open_drawer", **arguments)
    data = env.rollout(400)
    assert env.horizon == decisions == len(data)
    assert data["next", "truncated"].flatten().nonzero().flatten().tolist() == [decisions - 1]
    assert flags(data["next"][-1]) == {"done", "truncated"}
    assert data["next", "executed"].all()


def test_success_in_the_last_decision_is_a_termination(make_fake_env):
    env = make_fake_env(horizon=1, chunk_size=40)
    step = env.step(env.reset().update(chunk(40)))["next"]
    assert flags(step) == {"success", "done", "terminated"}


def test_a_crash_is_neither_failure_nor_termination(make_fake_env, caplog):
    env = make_fake_env(chunk_size=8, image_size=2)
    data = env.step(env.reset().update(chunk()))["next"]
    env.simulator.crash_at = 11
    step = env.step(data.update(chunk()))["next"]
    assert flags(step) == {"done", "truncated", "crashed"}
    assert step["executed"].tolist() == [True] * 3 + [False] * 5
    assert (step["observation"] == data["observation"]).all()
    assert step["reward"].item() == 0.0
    assert caplog.messages == ["the state is not finite"]
    assert not env.step(env.reset().update(chunk()))["next", "crashed"].any()


def test_a_dead_simulator_is_replaced_at_the_next_reset(make_fake_env, caplog):
    env = make_fake_env()
    dead = env.simulator
    dead.broken = True
    data = start(env, 5)
    assert (dead.closed, env.simulator.closed) == (True, False)
    assert env.simulator is not dead
    assert len(env.simulator.resets) == 1
    assert torch.equal(data["observation", "state"], seen(0))
    assert caplog.messages == ["no physics server; a new simulator takes its place"]


def test_the_arm_is_clipped_and_the_gripper_takes_a_sign(make_fake_env):
    env = make_fake_env(chunk_size=4)
    actions = torch.tensor([[2.0, -3, 0.5, 0, 0, 0, g] for g in (0.0, -0.0, 0.3, -0.1)])
    env.step(env.reset().update({("vla_action", "chunk"): actions}))
    taken = np.stack(env.simulator.actions)
    assert taken.dtype == np.float64
    assert taken[:, :6].tolist() == [[1, -1, 0.5, 0, 0, 0]] * 4
    assert taken[:, 6].tolist() == [1, 1, 1, -1]
    assert actions[0, 0] == 2.0
