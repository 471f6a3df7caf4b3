"""Seer from what an environment writes to the parameters of a policy."""

from __future__ import annotations

from torch import Tensor

from rftf_torchrl.paper_policies.blocks.inputs import kept_features
from rftf_torchrl.paper_policies.blocks.pictures import clip_picture
from rftf_torchrl.paper_policies.blocks.reader import WindowReader, at_last
from rftf_torchrl.paper_policies.seer.network import Seer


class SeerActor(WindowReader):
    """Mean of the arm and logit of an open gripper at the last observation of a window.

    Args:
        network: the network.
        chunk_size: actions kept of those predicted.
        wrist: whether there is a gripper camera.
    """

    def __init__(self, network: Seer, chunk_size: int, wrist: bool) -> None:
        super().__init__(network, clip_picture, "text_projector")
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
        """Returns [*B, H, arm_dim] and [*B, H], float32; `kept`: see :class:`WindowReader`."""
        seen, pose, opened, flat_valid, text = self.observed(
            (image, wrist_image), state, valid, tokens, kept
        )
        out = self.network(*seen, arm=pose.to(self.dtype), gripper=opened, text=text)
        batch, count = valid.shape[:-1], self.chunk_size
        return (
            at_last(out.arm[:, :, :count], flat_valid, batch),
            at_last(out.gripper[:, :, :count], flat_valid, batch),
        )
