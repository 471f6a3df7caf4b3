"""CalvinEnv refuses wrong actions and arguments, and says which."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from _calvin_steps import start
from tensordict import TensorDict

from rftf_torchrl import CalvinEnv, StateBank, initial_states, training_scene
from rftf_torchrl.calvin.tasks import TASKS


@pytest.mark.parametrize(("size", "key"), [(None, "action"), (5, "('vla_action', 'chunk')")])
def test_an_action_that_is_not_finite(make_fake_env, size, key):
    env = make_fake_env(chunk_size=size)
    start(env, 8)
    action = torch.full((7,) if size is None else (size, 7), float("nan"))
    message = f"{key}: the action for task 'close_drawer', episode seed 8, decision 0 is not finite"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.step(TensorDict().set(env.action_key, action))


@pytest.mark.parametrize(
    ("size", "key", "given", "expected"),
    [
        (None, "action", (14,), (7,)),
        (None, "action", (1, 7), (7,)),
        (None, "action", (6,), (7,)),
        (7, "('vla_action', 'chunk')", (7, 6), (7, 7)),
        (8, "('vla_action', 'chunk')", (4, 7), (8, 7)),
        (8, "('vla_action', 'chunk')", (16, 7), (8, 7)),
        (8, "('vla_action', 'chunk')", (7, 8), (8, 7)),
        (8, "('vla_action', 'chunk')", (56,), (8, 7)),
    ],
)
def test_an_action_of_another_shape(make_fake_env, size, key, given, expected):
    """Reshaped, they would be other actions than were meant, or more or fewer."""
    env = make_fake_env(chunk_size=size)
    start(env, 8)
    message = (
        f"{key}: the action for task 'close_drawer', episode seed 8, decision 0 has the shape "
        f"{given}, and the environment's action spec has {expected}: give each decision as many "
        "actions, of as many numbers, as the spec has"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.step(TensorDict().set(env.action_key, torch.ones(given)))
    assert env.simulator.actions == []


@pytest.mark.parametrize("name", ["image_size", "wrist_size", "chunk_size", "horizon"])
def test_counts_must_be_positive(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
        CalvinEnv("open_drawer", **{name: 0})


def one_state(scene):
    robot_obs, scene_obs = training_scene(initial_states()[0], 0, scene)
    return StateBank(robot_obs[None], scene_obs[None], np.array([2]), np.array([0]), scene)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "fly"}, f"unknown CALVIN task 'fly'; choose from {', '.join(TASKS)}"),
        ({"scene": "E"}, "scene must be 'A', 'B', 'C' or 'D', got 'E'"),
        ({"split": "all"}, "split must be 'train' or 'test', got 'all'"),
        (
            {"image_size": None, "depth": True},
            "depth needs a camera: give image_size or wrist_size",
        ),
        (
            {"scene": "A", "states": one_state("D")},
            "states is a bank of scene D, and the environment is scene A, where furniture and "
            "blocks lie elsewhere: give a bank of that scene",
        ),
    ],
)
def test_bad_arguments(make_fake_env, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_fake_env(**arguments)
