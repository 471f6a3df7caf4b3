"""What is written of a policy at the start of an episode."""

import pytest
import torch
from _arm_env import ArmEnv
from PIL import Image
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.envs import Transform, TransformedEnv

from rftf_torchrl.evaluation.start_report import write_start_report
from rftf_torchrl.keys import CHUNK, STATE


class Ramp(nn.Module):
    """Two known actions, and buffers of which one is a statistic."""

    def __init__(self, gripper):
        super().__init__()
        self.gripper = gripper
        self.register_buffer("mean", torch.tensor([0.25, -1.5]))
        self.register_buffer("table", torch.zeros(129))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, state):
        arm = torch.linspace(-0.5, 2.0, 12).reshape(2, 6)
        chunk = torch.cat([arm, torch.full((2, 1), self.gripper)], -1)
        return chunk.expand(len(state), 2, 7)


def report(folder, env, gripper, opens=1.0):
    policy = TensorDictModule(Ramp(gripper), [STATE], [CHUNK]).train()
    generator = torch.get_rng_state()
    text = write_start_report(
        env, env.reset(), policy, lambda sign: 0.08 if sign == opens else 0.001, folder, "mine"
    )
    assert policy.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert (folder / "start_mine.md").read_text(encoding="utf-8") == text
    return text


class Arm(ArmEnv):
    instruction = "lift the red block"


def test_the_whole_text_and_the_picture(tmp_path):
    text = report(tmp_path, Arm(chunk=2, size=4, state_dim=2), 0.5)
    assert text == (
        'At the start of "lift the red block" the policy "mine" sees this.\n\n'
        "![image, wrist_image](start_mine.png)\n\n"
        "State, 2 numbers: 0, 0.841.\n\n"
        "The gripper's number: +1 opens (fingers 0.080 m apart after 10 steps), -1 closes "
        "(0.001 m). The policy's first action ends in +0.50, which opens: -0.5, -0.273, -0.0455, "
        "0.182, 0.409, 0.636, 0.5.\n\n"
        "The arm's numbers of the first decision are between -0.5 and 2; the simulator takes -1 to "
        "1.\n\n"
        "Statistics in the policy:\n\n"
        "- module.mean: 0.25, -1.5\n"
    )
    assert Image.open(tmp_path / "start_mine.png").size == (8, 4)


@pytest.mark.parametrize(
    ("gripper", "opens", "what"),
    [(0.5, -1.0, "closes"), (-0.5, -1.0, "opens"), (-0.5, 1.0, "closes")],
)
def test_what_the_first_action_does_is_measured(gripper, opens, what, tmp_path):
    text = report(tmp_path, Arm(chunk=2), gripper, opens)
    assert f"ends in {gripper:+.2f}, which {what}: " in text
    assert f"The gripper's number: {opens:+.0f} opens" in text


def test_the_action_is_the_simulators(tmp_path):
    """Not the policy's own, which a transform turns into it."""

    class Halved(Transform):
        def _inv_apply_transform(self, action):
            return action / 2

    env = TransformedEnv(
        Arm(chunk=2, wrist=False), Halved(in_keys_inv=[CHUNK], out_keys_inv=[CHUNK])
    )
    text = report(tmp_path, env, 0.5)
    assert "ends in +0.25, which opens: -0.25, " in text
    assert "![image](start_mine.png)" in text
