"""GR-MG's network, from prepared tensors to predictions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn

from rftf_torchrl.paper_policies.blocks.clip_text import ClipText
from rftf_torchrl.paper_policies.blocks.gpt2 import GPT2Trunk
from rftf_torchrl.paper_policies.blocks.perceiver import PerceiverResampler
from rftf_torchrl.paper_policies.blocks.vit import MAEEncoder
from rftf_torchrl.paper_policies.gr_mg.config import GRMGConfig
from rftf_torchrl.paper_policies.gr_mg.heads import ActionHead, ImageHead, ProgressHead

Head = Literal["action", "progress", "images"]


class GRMG(nn.Module):
    """Reads a goal image, an instruction and a window of observations, and predicts actions.

    A transformer runs over ten tokens of the goal image and, per observation, tokens of
    instruction, arm, and both images, followed by queries. Tokens see those before them; no token
    sees the queries, so leaving some out does not change the others. There is no dropout.

    Source: Li et al. 2024, "GR-MG: Leveraging Partially Annotated Data via Multi-Modal Goal
    Conditioned Policy", arXiv 2408.14368.

    Args:
        config: the sizes.

    Raises:
        ImportError: if ``transformers`` is not installed.
    """

    def __init__(self, config: GRMGConfig) -> None:
        super().__init__()
        self.config = config
        hidden, features = config.hidden, config.image.dim
        self.model_mae = MAEEncoder(config.image)
        self.text_encoder = ClipText(config.text)
        self.perceiver_resampler = PerceiverResampler(config, media_embedding=True)
        self.transformer = GPT2Trunk(hidden, config.layers, config.heads, "relu")
        self.embed_arm_state = nn.Linear(config.arm_dim, hidden)
        self.embed_gripper_state = nn.Linear(2, hidden)
        self.embed_state = nn.Linear(2 * hidden, hidden)
        self.embed_lang = nn.Linear(config.text.dim, hidden)
        self.embed_img = nn.Linear(features, hidden)
        self.embed_hand_img = nn.Linear(features, hidden)
        self.embed_goal_image = nn.Linear(features, hidden)
        self.embed_patch = nn.Linear(features, hidden)
        self.embed_hand_patch = nn.Linear(features, hidden)
        self.embed_goal_patch = nn.Linear(features, hidden)
        self.embed_timestep = nn.Embedding(config.history, hidden)
        self.embed_ln = nn.LayerNorm(hidden)
        self.action = ActionHead(config)
        self.images = ImageHead(config)
        self.progress = ProgressHead(config)

    @property
    def towers(self) -> tuple[MAEEncoder, ClipText]:
        """The image encoder and the text tower."""
        return self.model_mae, self.text_encoder

    def forward(
        self,
        image: Tensor,
        wrist_image: Tensor,
        goal_image: Tensor,
        arm: Tensor,
        gripper: Tensor,
        valid: Tensor,
        text: Tensor,
        *,
        style: Tensor | None = None,
        heads: Collection[Head] = ("action", "progress"),
    ) -> dict[str, Tensor]:
        """Predicts at every observation of a window.

        Args:
            image: normalised images of the static camera, float [N, L, 3, S, S], or what
                :meth:`encode` made of them, [N, L, 1 + patches, dim].
            wrist_image: those of the gripper camera, in the same forms.
            goal_image: float [N, 3, S, S], or [N, 1 + patches, dim].
            arm: state of the arm, float [N, L, arm_dim].
            gripper: its state, int64 [N, L]: 1 open, 0 closed.
            valid: which observations there are, bool [N, L].
            text: features of the instruction, float [N, text.dim].
            style: style of the chunks, float [N, L, style_dim]; None for zero.
            heads: what to predict.

        Returns:
            What was asked for, at each of the L observations: ``"arm"`` [N, L, act_len, arm_dim]
            and ``"gripper"`` [N, L, act_len], the logit of an open one; ``"progress"`` [N, L], the
            share of the instruction carried out; ``"image"`` and ``"wrist_image"``
            [N, L, patches, 3 * patch_size^2], the images three steps ahead.
        """
        image, wrist_image = (
            seen if seen.ndim == 4 else self.encode(seen) for seen in (image, wrist_image)
        )
        if goal_image.ndim == 4:
            goal_image = self.encode(goal_image)
        goal = torch.cat(self._see(goal_image, self.embed_goal_patch, self.embed_goal_image), dim=1)
        observed = self._observed(image, wrist_image, arm, gripper, text)
        asked = self._queries(heads)
        queries = torch.cat(list(asked.values()))
        steps = torch.cat((observed, queries.expand(*observed.shape[:2], -1, -1)), dim=2)
        tokens = torch.cat((goal, steps.flatten(1, 2)), dim=1)
        sees = self._visible(valid, goal.shape[1], observed.shape[2], queries.shape[0])
        out = self.transformer(self.embed_ln(tokens), sees)
        out = out[:, goal.shape[1] :].unflatten(1, steps.shape[1:3])[:, :, observed.shape[2] :]
        sizes = [len(each) for each in asked.values()]
        answers = dict(zip(asked, out.split(sizes, dim=2), strict=True))
        found: dict[str, Tensor] = {}
        if "action" in heads:
            action = answers["action"].squeeze(2)
            found["arm"], found["gripper"] = self.action.decode(action, style)
        if "images" in heads:
            found["image"] = self.images(answers["image"])
            found["wrist_image"] = self.images(answers["wrist_image"])
        if "progress" in heads:
            found["progress"] = self.progress(answers["progress"].squeeze(2))
        return found

    def encode(self, image: Tensor) -> Tensor:
        """Maps images [..., 3, S, S] to class token and patches, [..., 1 + patches, dim]."""
        return self.model_mae.tokens_of(image)

    def _see(self, seen: Tensor, patch: nn.Module, whole: nn.Module) -> tuple[Tensor, Tensor]:
        """Tokens of encoded images [N, ...]: [N, latents, hidden] and [N, 1, hidden]."""
        return patch(self.perceiver_resampler(seen[:, 1:])), whole(seen[:, 0])[:, None]

    def _observed(
        self, image: Tensor, wrist_image: Tensor, arm: Tensor, gripper: Tensor, text: Tensor
    ) -> Tensor:
        """Tokens of what was observed, [N, L, tokens, hidden]."""
        window = image.shape[:2]
        text = text / (text.norm(dim=-1, keepdim=True) + 1e-6)
        spoken = self.embed_lang(text)[:, None, None].expand(-1, window[1], -1, -1)
        one_hot = nn.functional.one_hot(gripper, 2).to(arm.dtype)
        state = torch.cat((self.embed_arm_state(arm), self.embed_gripper_state(one_hot)), dim=-1)
        seen = (
            *self._see(image.flatten(0, 1), self.embed_patch, self.embed_img),
            *self._see(wrist_image.flatten(0, 1), self.embed_hand_patch, self.embed_hand_img),
        )
        pictures = torch.unflatten(torch.cat(seen, dim=1), 0, window)
        tokens = torch.cat((spoken, self.embed_state(state)[:, :, None], pictures), dim=2)
        return tokens + self.embed_timestep.weight[: window[1], None]

    def _queries(self, heads: Collection[Head]) -> dict[str, Tensor]:
        """The queries that the heads need, [n, hidden] each."""
        asked = {
            "action": ("action", self.action.action_queries),
            "image": ("images", self.images.obs_queries),
            "wrist_image": ("images", self.images.obs_hand_queries),
            "progress": ("progress", self.progress.progress_queries),
        }
        return {name: query.weight for name, (head, query) in asked.items() if head in heads}

    def _visible(self, valid: Tensor, goal: int, observed: int, queries: int) -> Tensor:
        """Which tokens [N, S, S] a token sees: goal and valid observations up to itself."""
        number, length = valid.shape
        column = valid.new_zeros(number, length, observed + queries)
        column[..., :observed] = valid[..., None]
        column = torch.cat((valid.new_ones(number, goal), column.flatten(1)), dim=1)
        size = column.shape[1]
        before = torch.ones(size, size, dtype=torch.bool, device=valid.device).tril()
        return before & column[:, None]
