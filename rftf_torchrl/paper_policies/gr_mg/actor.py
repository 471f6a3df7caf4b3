"""GR-MG from what an environment writes to the parameters of a policy."""

from __future__ import annotations

import torch
from torch import Tensor

from rftf_torchrl.functional.poses import euler_to_matrix, matrix_to_euler
from rftf_torchrl.paper_policies.blocks.inputs import kept_features
from rftf_torchrl.paper_policies.blocks.pictures import imagenet_picture
from rftf_torchrl.paper_policies.blocks.reader import WindowReader, at_last
from rftf_torchrl.paper_policies.gr_mg.network import GRMG


class GRMGReader(WindowReader):
    """Prepares a window as the authors' wrapper does, and holds the network.

    Args:
        network: the network.
    """

    def __init__(self, network: GRMG) -> None:
        super().__init__(network, imagenet_picture, "embed_lang")

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
        """The network's inputs, batch [N], from entries of batch [*B]."""
        pictures, pose, opened, valid, text = self.observed(
            (image, wrist_image, goal_image), state, valid, tokens, kept
        )
        return {
            "image": pictures[0],
            "wrist_image": pictures[1],
            "goal_image": pictures[2],
            "arm": (relative_to_first(pose) * valid[..., None]).to(self.dtype),
            "gripper": opened * valid,
            "valid": valid,
            "text": text,
        }


class GRMGActor(GRMGReader):
    """Mean of the arm, logit of an open gripper, and progress, at the last observation.

    Args:
        network: the network.
        chunk_size: actions kept of those predicted.
        wrist: whether there is a gripper camera.
    """

    def __init__(self, network: GRMG, chunk_size: int, wrist: bool) -> None:
        super().__init__(network)
        self.chunk_size = chunk_size
        self.kept = kept_features(self.frozen_features, wrist=wrist, goal=True)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns [*B, H, arm_dim], [*B, H] and [*B, 1], float32; takes what :meth:`read` does."""
        read = self.read(*inputs)
        out = self.network(**read)
        batch, valid, count = inputs[3].shape[:-1], read["valid"], self.chunk_size
        return (
            at_last(out["arm"][:, :, :count], valid, batch),
            at_last(out["gripper"][:, :, :count], valid, batch),
            at_last(out["progress"], valid, batch).unsqueeze(-1),
        )


class GRMGProgress(GRMGReader):
    """GR-MG's own progress head as the score of an observation."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Returns shares in (0, 1), float32 [*B, 1]; takes what :meth:`read` does."""
        read = self.read(*inputs)
        progress = self.network(**read, heads=("progress",))["progress"]
        return at_last(progress, read["valid"], inputs[3].shape[:-1]).unsqueeze(-1)


def relative_to_first(pose: Tensor) -> Tensor:
    """A window of poses [N, L, arm_dim] as seen from its first one, in float64 inside."""
    pose = pose.double()
    shift = pose[..., :3] - pose[:, :1, :3]
    if pose.shape[-1] == 3:
        return shift
    rotation = euler_to_matrix(pose[..., 3:])
    back = rotation[:, :1].mT
    moved = (back @ shift[..., None]).squeeze(-1)
    return torch.cat((moved, matrix_to_euler(back @ rotation)), dim=-1)
