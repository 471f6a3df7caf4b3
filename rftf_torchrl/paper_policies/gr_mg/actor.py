"""GR-MG from what an environment writes to the parameters of a policy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rftf_torchrl.functional.poses import euler_to_matrix, matrix_to_euler
from rftf_torchrl.nets.tower_features import trains
from rftf_torchrl.paper_policies.blocks.frozen_features import kept_features
from rftf_torchrl.paper_policies.blocks.inputs import Robot, robot_pose
from rftf_torchrl.paper_policies.blocks.pictures import imagenet_picture
from rftf_torchrl.paper_policies.gr_mg.network import GRMG


class GRMGReader(nn.Module):
    """Prepares a window as the authors' wrapper does, and holds the network.

    Args:
        network: the network.
        robot: whose states they are.
    """

    def __init__(self, network: GRMG, robot: Robot) -> None:
        super().__init__()
        self.network = network
        self.robot = robot

    def read(
        self,
        image: Tensor,
        wrist_image: Tensor,
        state: Tensor,
        valid: Tensor,
        goal_image: Tensor,
        tokens: Tensor,
        *kept: Tensor | None,
    ) -> dict[str, Tensor]:
        """The network's inputs, batch [N], from entries of batch [*B].

        Entries of `kept` are static pictures, gripper pictures, goal image and text as
        :meth:`frozen_features` gives them; None where they are not known.
        """
        batch = valid.ndim - 1
        dtype = self.network.embed_lang.weight.dtype
        known = [None if each is None else _flat(each, batch) for each in kept or (None,) * 4]
        pose, opened = robot_pose(_flat(state, batch), self.robot)
        valid = _flat(valid, batch)
        arm = relative_to_first(pose, self.robot) * valid[..., None]
        pictures = [
            self._picture(_flat(image, batch)) if seen is None else seen
            for image, seen in zip((image, wrist_image, goal_image), known, strict=False)
        ]
        text = self.network.text_encoder(_flat(tokens, batch)) if known[3] is None else known[3]
        return {
            "image": pictures[0],
            "wrist_image": pictures[1],
            "goal_image": pictures[2],
            "arm": arm.to(dtype),
            "gripper": opened * valid,
            "valid": valid,
            "text": text.to(dtype),
        }

    def _picture(self, image: Tensor) -> Tensor:
        flat = image.reshape(-1, *image.shape[-3:])
        pictures = imagenet_picture(flat, self.network.config.image.image_size)
        return pictures.unflatten(0, image.shape[:-3]).to(self.network.embed_lang.weight.dtype)


class GRMGActor(GRMGReader):
    """Mean of the arm, logit of an open gripper, and progress, at the last observation.

    Args:
        network: the network.
        robot: whose states they are.
        chunk_size: actions kept of those predicted.
        wrist: whether there is a gripper camera.
    """

    def __init__(self, network: GRMG, robot: Robot, chunk_size: int, wrist: bool) -> None:
        super().__init__(network, robot)
        self.chunk_size = chunk_size
        self.kept = kept_features(self.frozen_features, wrist=wrist, goal=True)

    def forward(
        self,
        image: Tensor,
        wrist_image: Tensor,
        state: Tensor,
        valid: Tensor,
        goal_image: Tensor,
        tokens: Tensor,
        *kept: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns [*B, H, arm_dim], [*B, H] and [*B, 1], float32."""
        inputs = self.read(image, wrist_image, state, valid, goal_image, tokens, *kept)
        out = self.network(**inputs)
        batch = valid.shape[:-1]
        arm = _last(out["arm"], inputs["valid"])[:, : self.chunk_size].float()
        gripper = _last(out["gripper"], inputs["valid"])[:, : self.chunk_size].float()
        progress = _last(out["progress"], inputs["valid"]).float()
        return (
            arm.reshape(*batch, *arm.shape[1:]),
            gripper.reshape(*batch, *gripper.shape[1:]),
            progress.reshape(*batch, 1),
        )

    def frozen_features(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the encoders that do not train make of pictures and instruction, batch [N]."""
        network, found = self.network, {}
        if not trains(network.model_mae):
            pictures = {name: value for name, value in inputs.items() if name != "tokens"}
            found = {n: network.encode(self._picture(each)) for n, each in pictures.items()}
        if not trains(network.text_encoder):
            found["text"] = network.text_encoder(inputs["tokens"])
        return found


class GRMGProgress(GRMGReader):
    """GR-MG's own progress head as the score of an observation."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Returns shares in (0, 1), float32 [*B, 1]; takes what :class:`GRMGActor` takes."""
        read = self.read(*inputs)
        progress = self.network(**read, heads=("progress",))["progress"]
        return _last(progress, read["valid"]).float().reshape(*inputs[3].shape[:-1], 1)


def relative_to_first(pose: Tensor, robot: Robot) -> Tensor:
    """A window of poses [N, L, arm_dim] as seen from its first one, in float64 inside."""
    pose = pose.double()
    shift = pose[..., :3] - pose[:, :1, :3]
    if robot == "position":
        return shift
    rotation = euler_to_matrix(pose[..., 3:])
    back = rotation[:, :1].mT
    moved = (back @ shift[..., None]).squeeze(-1)
    return torch.cat((moved, matrix_to_euler(back @ rotation)), dim=-1)


def _last(window: Tensor, valid: Tensor) -> Tensor:
    """Entries [N, ...] of windows [N, L, ...] at the last valid observation."""
    return window[torch.arange(len(valid), device=valid.device), valid.sum(-1) - 1]


def _flat(entry: Tensor, batch: int) -> Tensor:
    return entry.reshape(-1, *entry.shape[batch:])
