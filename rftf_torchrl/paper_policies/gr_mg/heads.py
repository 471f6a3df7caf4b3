"""What GR-MG reads off its transformer: actions, progress and future images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rftf_torchrl.paper_policies.blocks.vit import ViTBlock, sincos_2d
from rftf_torchrl.paper_policies.gr_mg.config import GRMGConfig


class ActionHead(nn.Module):
    """A conditional variational autoencoder over chunks of actions."""

    def __init__(self, config: GRMGConfig) -> None:
        super().__init__()
        dim, heads, depth = config.act_dim, config.act_heads, config.act_depth
        self.action_queries = nn.Embedding(1, config.hidden)
        self.embed_arm_action = nn.Linear(config.arm_dim, dim)
        self.embed_gripper_action = nn.Embedding(2, dim)
        self.embed_action = nn.Linear(2 * dim, dim)
        self.action_encoder_cls_token = nn.Embedding(1, dim)
        self.encode_action = nn.ModuleList(ViTBlock(dim, heads) for _ in range(depth))
        self.action_encoder_positional_embeddings = nn.Embedding(config.act_len + 1, dim)
        self.pred_style_vector = nn.Linear(dim, 2 * config.style_dim)
        self.embed_style_vector = nn.Linear(config.style_dim, dim)
        self.proj_action_output_embed = nn.Linear(config.hidden, dim)
        self.decode_action = nn.ModuleList(ViTBlock(dim, heads) for _ in range(depth))
        self.action_mask_token_embedding = nn.Embedding(1, dim)
        self.action_decoder_positional_embeddings = nn.Embedding(config.act_len, dim)
        self.pred_arm_act = nn.Linear(dim, config.arm_dim)
        self.pred_gripper_act = nn.Linear(dim, 1)

    def encode_style(self, arm: Tensor, gripper: Tensor) -> tuple[Tensor, Tensor]:
        """The style of demonstrated chunks, for cloning.

        Args:
            arm: float [*B, act_len, arm_dim].
            gripper: int64 [*B, act_len], 1 open, 0 closed.

        Returns:
            Mean and log-variance, both [*B, style_dim].
        """
        embedded = torch.cat((self.embed_arm_action(arm), self.embed_gripper_action(gripper)), -1)
        cls = self.action_encoder_cls_token.weight.expand(*arm.shape[:-2], 1, -1)
        x = torch.cat((cls, self.embed_action(embedded)), dim=-2)
        x = (x + self.action_encoder_positional_embeddings.weight).flatten(0, -3)
        for block in self.encode_action:
            x = block(x)
        style = self.pred_style_vector(x[:, 0]).unflatten(0, arm.shape[:-2])
        mean, log_variance = style.chunk(2, dim=-1)
        return mean, log_variance

    def decode(self, query: Tensor, style: Tensor | None) -> tuple[Tensor, Tensor]:
        """The chunk at a query's output.

        Args:
            query: [*B, hidden].
            style: [*B, style_dim]; None for zero, as at inference.

        Returns:
            Arm [*B, act_len, arm_dim] and the logit of an open gripper [*B, act_len].
        """
        batch = query.shape[:-1]
        if style is None:
            head = self.embed_style_vector.bias.expand(*batch, -1)
        else:
            head = self.embed_style_vector(style)
        slots = (
            self.action_mask_token_embedding.weight
            + self.action_decoder_positional_embeddings.weight
        )
        first = torch.stack((head, self.proj_action_output_embed(query)), dim=-2)
        x = torch.cat((first, slots.expand(*batch, -1, -1)), dim=-2).flatten(0, -3)
        for block in self.decode_action:
            x = block(x)
        x = torch.unflatten(x[:, 2:], 0, batch)
        return self.pred_arm_act(x), self.pred_gripper_act(x).squeeze(-1)


class ImageHead(nn.Module):
    """Predicts the images of both cameras a few steps ahead, as patches; shared by them."""

    decoder_pos_embed: Tensor

    def __init__(self, config: GRMGConfig) -> None:
        super().__init__()
        hidden, image = config.hidden, config.image
        self.obs_queries = nn.Embedding(config.resampler_latents + 1, hidden)
        self.obs_hand_queries = nn.Embedding(config.resampler_latents + 1, hidden)
        self.decoder_embed = nn.Linear(hidden, hidden)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, hidden))
        self.register_buffer("decoder_pos_embed", sincos_2d(image.grid, hidden)[None])
        self.decoder_blocks = nn.ModuleList(
            ViTBlock(hidden, config.image_heads) for _ in range(config.image_depth)
        )
        self.decoder_norm = nn.LayerNorm(hidden)
        self.decoder_pred = nn.Linear(hidden, image.patch_size**2 * 3)

    def forward(self, queries: Tensor) -> Tensor:
        """Maps queries [*B, latents + 1, hidden] to patches [*B, patches, 3 * patch_size^2]."""
        batch, count = queries.shape[:-2], queries.shape[-2]
        slots = (self.mask_token[0, 0] + self.decoder_pos_embed[0]).expand(*batch, -1, -1)
        x = torch.cat((self.decoder_embed(queries), slots), dim=-2).flatten(0, -3)
        for block in self.decoder_blocks:
            x = block(x)
        x = self.decoder_pred(self.decoder_norm(x))
        return torch.unflatten(x[:, count:], 0, batch)


class ProgressHead(nn.Module):
    """Predicts which share of the instruction has been carried out."""

    def __init__(self, config: GRMGConfig) -> None:
        super().__init__()
        dim = config.progress_dim
        self.progress_queries = nn.Embedding(1, config.hidden)
        self.proj_progress_output_embed = nn.Linear(config.hidden, dim)
        self.decode_progress = nn.ModuleList(
            ViTBlock(dim, config.act_heads) for _ in range(config.progress_depth)
        )
        self.progress_mask_token_embedding = nn.Embedding(1, dim)
        self.pred_progress = nn.Linear(dim, 1)

    def forward(self, query: Tensor) -> Tensor:
        """Maps queries [*B, hidden] to shares in (0, 1), [*B]."""
        slot = self.progress_mask_token_embedding.weight[0].expand(*query.shape[:-1], -1)
        x = torch.stack((self.proj_progress_output_embed(query), slot), dim=-2).flatten(0, -3)
        for block in self.decode_progress:
            x = block(x)
        share: Tensor = self.pred_progress(x[:, 1])
        return torch.unflatten(share.squeeze(-1).sigmoid(), 0, query.shape[:-1])
