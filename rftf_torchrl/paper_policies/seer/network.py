"""Seer's network, from prepared tensors to predictions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rftf_torchrl.paper_policies.blocks.clip_text import ClipText
from rftf_torchrl.paper_policies.blocks.gpt2 import GPT2Trunk
from rftf_torchrl.paper_policies.blocks.perceiver import PerceiverResampler
from rftf_torchrl.paper_policies.blocks.vit import MAEEncoder, ViTBlock, sincos_2d
from rftf_torchrl.paper_policies.seer.config import SeerConfig


@dataclass(frozen=True)
class SeerOutput:
    """What Seer predicts at each of the L observations.

    Attributes:
        arm: float [N, L, act_len, arm_dim], in (-1, 1).
        gripper: logit of an open gripper, float [N, L, act_len].
        images: patches of the static and the gripper camera's image, float
            [N, L, 2, patches, 3 * patch_size^2]; None where they were not asked for.
    """

    arm: Tensor
    gripper: Tensor
    images: Tensor | None = None


class Seer(nn.Module):
    """Reads an instruction and a window of observations, foresees images and acts on them.

    A transformer runs over tokens of instruction, arm and both images of each observation,
    followed by queries for the images and for the actions. Every token sees the observations up
    to its own; action queries also see the image queries of their own step. There is no dropout.

    Source: Tian et al. 2024, "Predictive Inverse Dynamics Models are Scalable Learners for Robotic
    Manipulation", arXiv 2412.15109.

    Args:
        config: the sizes.

    Raises:
        ImportError: if ``transformers`` is not installed.
    """

    image_decoder_position_embedding: Tensor

    def __init__(self, config: SeerConfig) -> None:
        super().__init__()
        self.config = config
        hidden, features, half = config.hidden, config.image.dim, config.hidden // 2
        self.vision_encoder = MAEEncoder(config.image)
        self.clip_model = ClipText(config.text)
        self.text_projector = nn.Linear(config.text.dim, hidden)
        self.arm_state_encoder = nn.Linear(config.arm_dim, hidden)
        self.gripper_state_encoder = nn.Linear(2, hidden)
        self.state_projector = nn.Linear(2 * hidden, hidden)
        self.perceiver_resampler = PerceiverResampler(config, media_embedding=False)
        self.image_primary_projector = nn.Linear(features, hidden)
        self.image_wrist_projector = nn.Linear(features, hidden)
        self.cls_token_primary_projector = nn.Linear(features, hidden)
        self.cls_token_wrist_projector = nn.Linear(features, hidden)
        self.action_pred_token = nn.Parameter(torch.zeros(1, 1, config.act_len, hidden))
        self.obs_tokens = nn.Parameter(torch.zeros(1, 1, 2 * config.foresight, hidden))
        self.transformer_backbone_position_embedding = nn.Parameter(
            0.02 * torch.randn(1, config.history, 1, hidden)
        )
        self.embedding_layer_norm = nn.LayerNorm(hidden)
        self.transformer_backbone = GPT2Trunk(hidden, config.layers, config.heads, "gelu_new")
        self.action_decoder = nn.Sequential(
            nn.Linear(hidden, half), nn.ReLU(), nn.Linear(half, half), nn.ReLU()
        )
        self.arm_action_decoder = nn.Sequential(nn.Linear(half, config.arm_dim), nn.Tanh())
        self.gripper_action_decoder = nn.Sequential(nn.Linear(half, 1))
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, hidden))
        self.image_decoder_obs_pred_projector = nn.Linear(hidden, hidden)
        self.register_buffer(
            "image_decoder_position_embedding",
            torch.cat(
                [
                    sincos_2d(round(config.foresight**0.5), hidden),
                    sincos_2d(config.image.grid, hidden),
                ]
            ),
            persistent=False,
        )
        self.image_decoder = nn.Sequential(
            *(ViTBlock(hidden, config.image_heads) for _ in range(config.image_depth))
        )
        self.image_decoder_norm = nn.LayerNorm(hidden)
        self.image_decoder_pred = nn.Linear(hidden, config.image.patch_size**2 * 3)

    @property
    def towers(self) -> tuple[MAEEncoder, ClipText]:
        """The image encoder and the text tower."""
        return self.vision_encoder, self.clip_model

    def forward(
        self,
        image: Tensor,
        wrist_image: Tensor,
        arm: Tensor,
        gripper: Tensor,
        text: Tensor,
        *,
        images: bool = False,
    ) -> SeerOutput:
        """Predicts at every observation of a window.

        Observations after a step do not change what is predicted at it, so a window may be filled
        up at its end with anything.

        Args:
            image: normalised images of the static camera, float [N, L, 3, S, S], or what
                :meth:`encode` made of them, [N, L, 1 + patches, dim].
            wrist_image: those of the gripper camera, in the same forms.
            arm: pose of the arm, float [N, L, arm_dim].
            gripper: its state, int64 [N, L]: 1 open, 0 closed.
            text: features of the instruction, float [N, text.dim].
            images: whether to predict the images.

        Returns:
            The predictions.
        """
        image, wrist_image = (
            seen if seen.ndim == 4 else self.encode(seen) for seen in (image, wrist_image)
        )
        observed = self._observed(image, wrist_image, arm, gripper, text)
        window, seen = observed.shape[:2], observed.shape[2]
        foresight = self.obs_tokens.shape[2]
        queries = torch.cat((self.obs_tokens, self.action_pred_token), dim=2)
        tokens = torch.cat((observed, queries.expand(*window, -1, -1)), dim=2)
        tokens = tokens + self.transformer_backbone_position_embedding[:, : window[1]]
        sees = self._visible(window[1], seen, foresight, self.config.act_len, image.device)
        out = self.transformer_backbone(self.embedding_layer_norm(tokens.flatten(1, 2)), sees)
        out = out.unflatten(1, tokens.shape[1:3])
        act = self.action_decoder(out[:, :, seen + foresight :])
        return SeerOutput(
            arm=self.arm_action_decoder(act),
            gripper=self.gripper_action_decoder(act).squeeze(-1),
            images=self._foresee(out[:, :, seen : seen + foresight]) if images else None,
        )

    def _observed(
        self, image: Tensor, wrist_image: Tensor, arm: Tensor, gripper: Tensor, text: Tensor
    ) -> Tensor:
        """Tokens of what was observed, [N, L, tokens, hidden]."""
        window = image.shape[:2]
        spoken = self.text_projector(text)[:, None, None].expand(-1, window[1], -1, -1)
        one_hot = nn.functional.one_hot(gripper, 2).to(arm.dtype)
        state = torch.cat((self.arm_state_encoder(arm), self.gripper_state_encoder(one_hot)), -1)
        primary_cls, primary = self._see(image)
        wrist_cls, wrist = self._see(wrist_image)
        return torch.cat(
            (
                spoken,
                self.state_projector(state)[:, :, None],
                self.image_primary_projector(primary),
                self.image_wrist_projector(wrist),
                self.cls_token_primary_projector(primary_cls),
                self.cls_token_wrist_projector(wrist_cls),
            ),
            dim=2,
        )

    def encode(self, image: Tensor) -> Tensor:
        """Maps images [..., 3, S, S] to class token and patches, [..., 1 + patches, dim]."""
        return self.vision_encoder.tokens_of(image)

    def _see(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Class token [N, L, 1, dim] and resampled patches [N, L, latents, dim]."""
        patches = self.perceiver_resampler(seen[:, :, 1:].flatten(0, 1))
        return seen[:, :, :1], patches.unflatten(0, seen.shape[:2])

    def _foresee(self, queries: Tensor) -> Tensor:
        """Patches [N, L, 2, patches, 3 * patch_size^2] from image queries."""
        count = self.config.foresight
        x = self.image_decoder_obs_pred_projector(queries).unflatten(2, (2, count))
        slots = self.mask_token.expand(*x.shape[:3], self.config.image.grid**2, -1)
        x = torch.cat((x, slots), dim=3) + self.image_decoder_position_embedding
        batch = x.shape[:3]
        x = self.image_decoder(x.flatten(0, 2))[:, count:]
        return torch.unflatten(self.image_decoder_pred(self.image_decoder_norm(x)), 0, batch)

    @staticmethod
    def _visible(
        length: int, seen: int, foresight: int, actions: int, device: torch.device
    ) -> Tensor:
        """Which tokens [S, S] a token sees."""
        place = torch.arange(seen + foresight + actions, device=device).repeat(length)
        step = torch.arange(length, device=device).repeat_interleave(seen + foresight + actions)
        observed = place < seen
        picture = (place >= seen) & (place < seen + foresight)
        acts = place >= seen + foresight
        before = step[:, None] >= step[None]
        same = step[:, None] == step[None]
        return (before & observed[None]) | (same & acts[:, None] & picture[None])
