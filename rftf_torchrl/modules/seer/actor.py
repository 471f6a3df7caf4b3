"""Seer from what an environment writes to the parameters of a policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rftf_torchrl.modules._vla_blocks.inputs import Robot, robot_pose
from rftf_torchrl.modules._vla_blocks.pictures import clip_picture
from rftf_torchrl.modules.seer.network import Seer


class SeerActor(nn.Module):
    """Mean of the arm and logit of an open gripper at the last observation of a window.

    Args:
        network: the network.
        robot: whose states they are.
        chunk_size: actions kept of those predicted.
    """

    def __init__(self, network: Seer, robot: Robot, chunk_size: int) -> None:
        super().__init__()
        self.network = network
        self.robot = robot
        self.chunk_size = chunk_size

    def forward(
        self, image: Tensor, wrist_image: Tensor, state: Tensor, valid: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns [*B, H, arm_dim] and [*B, H], float32."""
        batch, dtype = valid.shape[:-1], self.network.text_projector.weight.dtype
        count = len(batch)
        pose, opened = robot_pose(_flat(state, count), self.robot)
        valid = _flat(valid, count)
        out = self.network(
            image=self._picture(image).unflatten(0, valid.shape).to(dtype),
            wrist_image=self._picture(wrist_image).unflatten(0, valid.shape).to(dtype),
            arm=pose.to(dtype),
            gripper=opened,
            text=self.network.clip_model(_flat(tokens, count)).to(dtype),
        )
        rows = torch.arange(len(valid), device=valid.device), valid.sum(-1) - 1
        arm = out.arm[rows][:, : self.chunk_size].float()
        gripper = out.gripper[rows][:, : self.chunk_size].float()
        return arm.reshape(*batch, *arm.shape[1:]), gripper.reshape(*batch, *gripper.shape[1:])

    def _picture(self, image: Tensor) -> Tensor:
        return clip_picture(
            image.reshape(-1, *image.shape[-3:]), self.network.config.image.image_size
        )


def _flat(entry: Tensor, batch: int) -> Tensor:
    return entry.reshape(-1, *entry.shape[batch:])
