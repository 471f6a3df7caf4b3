"""CALVIN's chains by a policy that needs its own inputs: the processor hears every subtask."""

import re

import numpy as np
import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import VLAInputs, evaluate_chains
from rftf_torchrl.calvin import env
from rftf_torchrl.calvin.chains import play as chains
from rftf_torchrl.calvin.tasks import TASKS

HEARD = []


class FakeSimulator:
    """Any task is done after six steps."""

    def __init__(self, scene):
        self.robot_obs, self.scene_obs, self.info = np.zeros(15), np.zeros(24), {"steps": 0}

    def reset(self, robot_obs, scene_obs):
        self.robot_obs, self.scene_obs = robot_obs, scene_obs

    def step(self, action):
        self.info = {"steps": self.info["steps"] + 1}

    def achieved(self, start_info, tasks):
        return set(tasks) if self.info["steps"] - start_info["steps"] >= 6 else set()

    def picture(self, size):
        return np.full((3, size, size), self.info["steps"], np.uint8)

    def close(self):
        pass


class Act(nn.Module):
    def forward(self, steps, letters):
        assert steps.shape == letters.shape == (1, 1)
        HEARD.append((int(steps), int(letters)))
        return torch.zeros(1, 4, 7)


def processor(images, sentences):
    return {
        "steps": images[:, 0, 0, 0, :1].long(),
        "letters": torch.tensor([[len(sentence)] for sentence in sentences]),
    }


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(env, "CalvinSimulator", FakeSimulator)
    monkeypatch.setattr(chains, "require_calvin_env", lambda: None)
    HEARD.clear()


def test_every_subtask_reaches_the_policy_through_the_transform(fake):
    keys = [("vla_inputs", "steps"), ("vla_inputs", "letters")]
    policy = TensorDictModule(Act(), in_keys=keys, out_keys=[("vla_action", "chunk")])
    report = evaluate_chains(
        policy, transform=VLAInputs(processor), chains=1, chunk_size=4, image_size=8, workers=0
    )
    (result,) = report.results
    assert result.steps == (6,) * 5
    letters = [len(TASKS[task].instruction) for task in result.tasks]
    expected = [
        (start, count)
        for place, count in enumerate(letters)
        for start in (6 * place, 6 * place + 4)
    ]
    assert expected == HEARD
    assert "sees the simulator's state" not in report.protocol, "it reads images"


def other_processor(images, sentences):
    return processor(images, sentences)


def test_an_evaluation_is_not_resumed_with_other_inputs(fake, tmp_path):
    keys = [("vla_inputs", "steps"), ("vla_inputs", "letters")]
    policy = TensorDictModule(Act(), in_keys=keys, out_keys=[("vla_action", "chunk")])

    def evaluate(transform):
        return evaluate_chains(
            policy,
            transform=transform,
            chains=1,
            chunk_size=4,
            image_size=8,
            workers=0,
            resume_path=tmp_path / "chains.jsonl",
        )

    label = evaluate(VLAInputs(processor)).settings["transform"]
    heard = len(HEARD)
    assert evaluate(VLAInputs(processor)).settings["transform"] == label
    assert len(HEARD) == heard
    expected = rf"holds chains with transform = '{re.escape(label)}', and now it is 'VLAInputs \("
    with pytest.raises(ValueError, match=expected):
        evaluate(VLAInputs(other_processor))
