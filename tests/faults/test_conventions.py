"""Data of another convention are named where they come in, instead of being taken on trust."""

import re

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from rftf_torchrl import LeRobotObservation
from rftf_torchrl.calvin.data.checks import frame_problems
from rftf_torchrl.calvin.data.format import VECTORS
from rftf_torchrl.data.format import Task
from rftf_torchrl.envs.decision_env import DecisionEnv
from rftf_torchrl.paper_policies.blocks.pictures import clip_picture, imagenet_picture


@pytest.mark.parametrize("picture", [imagenet_picture, clip_picture])
def test_pictures_in_floats_for_the_paper_policies(picture):
    message = (
        "image must be uint8 in 0..255, got torch.float32: pass the frame as it was recorded, the "
        "network scales it."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        picture(torch.rand(1, 3, 8, 8), 8)


def lerobot_batch(image):
    seen = []

    def preprocess(batch):
        seen.append(batch)
        return batch

    name = "observation.images.top"
    transform = LeRobotObservation({name: "image"}, [name], None, lambda: (preprocess, None))
    transform(TensorDict({"image": image}, [len(image)]))
    return seen[0][name]


def test_pictures_in_floats_for_lerobot():
    image = torch.tensor([0.0, 127.0, 255.0]).reshape(1, 3, 1, 1)
    message = (
        "'image' holds images of torch.float32 from 0 to 255, expected uint8 in 0..255, or "
        "floating numbers in 0..1."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        lerobot_batch(image)
    assert torch.equal(lerobot_batch(image.byte()), image / 255)
    assert torch.equal(lerobot_batch(image / 255), image / 255)


def test_an_environment_with_pictures_in_floats():
    env = DecisionEnv.__new__(DecisionEnv)
    env.__dict__.update(
        _current=TensorDict({"pixels": torch.rand(8, 8, 3)}),
        image_key="pixels",
        task=Task(0, "hill", "drive up the hill"),
    )
    message = (
        "the image of task 'hill' at 'pixels' is torch.float32, expected uint8 in 0..255: scale "
        "and convert it in the environment"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.picture(4)


@pytest.mark.parametrize(("key", "index"), [("robot_obs", 5), ("robot_obs", 7), ("actions", 3)])
def test_angles_of_calvin_in_degrees(key, index):
    frame = {name: np.zeros(size) for name, size in VECTORS.items()}
    frame["actions"][6] = frame["rel_actions"][6] = 1
    frame[key][index] = -3.1
    assert frame_problems(frame) == []
    frame[key][index] = -90.0
    assert frame_problems(frame) == [
        f"key {key!r}: index {index} is -90.0, expected an angle in radians, -2 pi to 2 pi"
    ]
