"""One clear error for each wrong spec, input and goal image of GR-MG and Seer."""

import re
import sys
from dataclasses import replace

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import TransformedEnv

pytest.importorskip("transformers")
from _arm_env import ArmEnv
from _paper_policies import SPECS, build, rollout

from rftf_torchrl import LastFrames


def test_goal_images_that_do_not_fit():
    goals = LastFrames({3: torch.zeros(3, 8, 8, dtype=torch.uint8)})
    env = TransformedEnv(ArmEnv(chunk=2), SPECS["gr_mg"].observation_transform(goals))
    message = (
        "the goal image provider returned torch.uint8 (3, 8, 8), expected torch.uint8 (3, 32, 32), "
        "the static image's shape."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.reset()
    with pytest.raises(KeyError, match=r"no goal image for task 4, there are some for \[3\]"):
        goals(TensorDict(task_id=torch.tensor([4])), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"chunk_size": 9},
            "chunk_size must be from 1 to config.act_len = {act_len}, the actions that the network "
            "predicts, got 9.",
        ),
    ],
)
def test_specs_that_do_not_fit(spec, changes, message):
    message = message.format(act_len=spec.config.act_len)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(spec, **changes)


def test_inputs_that_do_not_fit(spec):
    policy = build(spec)
    data = rollout(spec, policy, 2).select(*spec.in_keys)
    short = data.clone()
    short["vla_inputs", "state_history"] = data["vla_inputs", "state_history"][..., :5]
    message = (
        "('observation', 'state') must have 11, 15 or 53 numbers for an arm of 6, got shape "
        "(2, 3, 5)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        policy(short)
    other = data.clone()
    other["vla_inputs", "clip_tokens"] = torch.ones(2, 12, dtype=torch.int64)
    with pytest.raises(ValueError, match="an instruction has no end token 63, so it was not token"):
        policy(other)
    other["vla_inputs", "clip_tokens"] = torch.full((2, 13), 63)
    with pytest.raises(ValueError, match="an instruction has 13 tokens, and CLIP's text tower ta"):
        policy(other)


def test_weights_that_are_not_finite(spec):
    policy = build(spec)
    data = rollout(spec, policy, 2).select(*spec.in_keys)
    with torch.no_grad():
        next(p for p in policy.parameters() if p.requires_grad).fill_(float("nan"))
    message = "24 of 24 means of the policy are not finite: its weights diverged, an observation is"
    with pytest.raises(FloatingPointError, match=f"^{re.escape(message)}"):
        policy(data)


def test_a_camera_that_is_off(spec):
    env = TransformedEnv(ArmEnv(chunk=2, wrist=False), spec.observation_transform())
    with pytest.raises(KeyError) as raised:
        env.reset()
    assert raised.value.args[0].startswith("('observation', 'wrist_image') is missing, so its hist")


@pytest.mark.parametrize(
    ("sentence", "count"), [("", 0), ("one two three four five six seven eight nine ten ten", 11)]
)
def test_sentences_of_a_wrong_length(spec, sentence, count):
    message = f"the instruction {sentence!r} has {count} tokens, expected 1 to 10: shorten it, or"
    with pytest.raises(ValueError, match=re.escape(message)):
        spec.observation_transform()[0].encode(sentence)


def test_without_transformers(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = r"needs the package transformers: pip install 'rftf-torchrl\[transformers\]'$"
    with pytest.raises(ImportError, match=message):
        spec.build()
