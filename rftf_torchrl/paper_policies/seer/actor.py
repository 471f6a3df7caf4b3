"""Seer from what an environment writes to the parameters of a policy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rftf_torchrl.nets.tower_features import trains
from rftf_torchrl.paper_policies.blocks.frozen_features import kept_features
from rftf_torchrl.paper_policies.blocks.inputs import Robot, robot_pose
from rftf_torchrl.paper_policies.blocks.pictures import clip_picture
from rftf_torchrl.paper_policies.seer.network import Seer


class SeerActor(nn.Module):
    """Mean of the arm and logit of an open gripper at the last observation of a window.

    Args:
        network: the network.
        robot: whose states they are.
        chunk_size: actions kept of those predicted.
        wrist: whether there is a gripper camera.
    """

    def __init__(self, network: Seer, robot: Robot, chunk_size: int, wrist: bool) -> None:
        super().__init__()
        self.network = network
        self.robot = robot
        self.chunk_size = chunk_size
        self.kept = kept_features(self.frozen_features, wrist=wrist)

    def forward(
        self,
        image: Tensor,
        wrist_image: Tensor,
        state: Tensor,
        valid: Tensor,
        tokens: Tensor,
        *kept: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Returns [*B, H, arm_dim] and [*B, H], float32.

        Entries of `kept` are static pictures, gripper pictures and text as
        :meth:`frozen_features` gives them; None where they are not known.
        """
        batch, dtype = valid.shape[:-1], self.network.text_projector.weight.dtype
        count = len(batch)
        pose, opened = robot_pose(_flat(state, count), self.robot)
        valid = _flat(valid, count)
        known = [None if each is None else _flat(each, count) for each in kept or (None,) * 3]
        pictures = [
            self._picture(_flat(image, count)) if seen is None else seen
            for image, seen in zip((image, wrist_image), known, strict=False)
        ]
        text = self.network.clip_model(_flat(tokens, count)) if known[2] is None else known[2]
        out = self.network(
            image=pictures[0],
            wrist_image=pictures[1],
            arm=pose.to(dtype),
            gripper=opened,
            text=text.to(dtype),
        )
        rows = torch.arange(len(valid), device=valid.device), valid.sum(-1) - 1
        arm = out.arm[rows][:, : self.chunk_size].float()
        gripper = out.gripper[rows][:, : self.chunk_size].float()
        return arm.reshape(*batch, *arm.shape[1:]), gripper.reshape(*batch, *gripper.shape[1:])

    def frozen_features(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the encoders that do not train make of pictures and instruction, batch [N]."""
        network, found = self.network, {}
        if not trains(network.vision_encoder):
            pictures = {name: value for name, value in inputs.items() if name != "tokens"}
            found = {n: network.encode(self._picture(each)) for n, each in pictures.items()}
        if not trains(network.clip_model):
            found["text"] = network.clip_model(inputs["tokens"])
        return found

    def _picture(self, image: Tensor) -> Tensor:
        flat = image.reshape(-1, *image.shape[-3:])
        pictures = clip_picture(flat, self.network.config.image.image_size)
        return pictures.unflatten(0, image.shape[:-3]).to(self.network.text_projector.weight.dtype)


def _flat(entry: Tensor, batch: int) -> Tensor:
    return entry.reshape(-1, *entry.shape[batch:])
