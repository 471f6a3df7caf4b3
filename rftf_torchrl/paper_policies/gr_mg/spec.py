"""A GR-MG policy as a description, and its progress head as a value model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs.transforms import Compose, Transform

from rftf_torchrl import keys
from rftf_torchrl.functional.poses import world_to_tool
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.paper_policies.blocks.checkpoint import only_module
from rftf_torchrl.paper_policies.blocks.clip_tokens import ClipTokens
from rftf_torchrl.paper_policies.blocks.inputs import (
    CLIP_TOKENS,
    GOAL_IMAGE,
    history_keys,
    robot_pose,
    spans_of,
)
from rftf_torchrl.paper_policies.blocks.spec import PaperPolicySpec
from rftf_torchrl.paper_policies.gr_mg.actor import GRMGActor, GRMGProgress
from rftf_torchrl.paper_policies.gr_mg.checkpoint import (
    load_gr_mg_checkpoint,
    write_gr_mg_checkpoint,
)
from rftf_torchrl.paper_policies.gr_mg.config import GRMGConfig
from rftf_torchrl.paper_policies.gr_mg.goal_images import (
    PROGRESS,
    GoalImageProvider,
    GoalImages,
    current_frame,
)
from rftf_torchrl.paper_policies.gr_mg.network import GRMG
from rftf_torchrl.paper_policies.gr_mg.tool_actions import ToolFrameActions
from rftf_torchrl.settings import Count
from rftf_torchrl.values.temporal_value import TemporalValueModel


@dataclass(frozen=True)
class GRMGSpec(PaperPolicySpec):
    """Everything that decides a GR-MG policy, besides what :class:`PaperPolicySpec` has.

    The policy is normal for the arm and Bernoulli for the gripper, in the network's own action
    space. Of an arm that turns (``config.arm_dim`` 6) that is the gripper's frame, scaled, and the
    environment's transform turns what was sampled into CALVIN's actions; see
    :class:`ToolFrameActions`. Parts that do not feed the action, and the two encoders, which were
    not trained either, are frozen. :meth:`load` reads the authors' file, see
    :func:`load_gr_mg_checkpoint`.

    Attributes:
        goal_every: decisions between two goal images; the authors' is 20.
        wrap_rotation: see :class:`ToolFrameActions`.

    Example:
        >>> spec = GRMGSpec(chunk_size=2)
        >>> GRMGSpec.from_dict(spec.to_dict()) == spec
        True
    """

    kind: ClassVar[str] = "gr_mg"
    config_class: ClassVar[type[GRMGConfig]] = GRMGConfig

    config: GRMGConfig = field(default_factory=GRMGConfig)
    goal_every: Count = 20
    wrap_rotation: bool = True

    @property
    def in_keys(self) -> list[NestedKey]:
        """What the policy reads."""
        return [*history_keys(self.wrist), GOAL_IMAGE, CLIP_TOKENS]

    def actor(self) -> nn.Module:
        """The network; trainable is what feeds the action at inference."""
        network = GRMG(self.config)
        _freeze(network)
        return GRMGActor(network, self.chunk_size, self.wrist)

    @nested_keys
    def build(self, *written: NestedKey) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights.

        It also writes ``"progress"`` float32 [*B, 1], by its own progress head.
        """
        return super().build(*written, PROGRESS)

    def fill(self, policy: nn.Module, source: str) -> None:
        """Reads the authors' file."""
        load_gr_mg_checkpoint(policy, source)

    def write(self, policy: nn.Module, source: str, folder: Path) -> Path:
        """Writes the authors' file again, under its name."""
        file = folder / Path(source).name
        write_gr_mg_checkpoint(policy, source, file)
        return file

    def observation_transform(self, goal_images: GoalImageProvider = current_frame) -> Transform:
        """Instruction tokens, history, goal image and the change of the action's frame.

        Args:
            goal_images: see :class:`GoalImages`; by default the stand-in :func:`current_frame`.
        """
        parts = [
            ClipTokens(self.config.text, self.files),
            self.history(),
            GoalImages(goal_images, self.goal_every),
        ]
        if self.config.arm_dim == 6:
            parts.append(ToolFrameActions(wrap=self.wrap_rotation))
        return Compose(*parts)

    def demonstration_batch(
        self,
        batch: TensorDictBase,
        frames: TensorDictBase,
        frame: Tensor,
        spans: Tensor,
        instructions: Sequence[str],
    ) -> TensorDictBase:
        """Adds to a batch of recorded frames what the policy reads of them.

        The goal image is the episode's last frame. A chunk in the batch is turned from the
        environment's action space into the policy's. See
        :meth:`PaperPolicySpec.demonstration_batch`.
        """
        super().demonstration_batch(batch, frames, frame, spans, instructions)
        batch[GOAL_IMAGE] = frames[keys.IMAGE][spans_of(frame, spans)[:, 1] - 1]
        chunk = batch.get(keys.CHUNK, None)
        if chunk is not None and self.config.arm_dim == 6:
            pose, _ = robot_pose(frames[keys.STATE][frame], 6)
            batch[keys.CHUNK] = world_to_tool(chunk, pose[:, 3:]).to(chunk.dtype)
        return batch


def _freeze(network: GRMG) -> None:
    """Leaves trainable what feeds the action at inference."""
    act = network.action
    for frozen in (
        network.model_mae,
        network.text_encoder,
        network.images,
        network.progress,
        act.embed_arm_action,
        act.embed_gripper_action,
        act.embed_action,
        act.action_encoder_cls_token,
        act.encode_action,
        act.action_encoder_positional_embeddings,
        act.pred_style_vector,
    ):
        frozen.requires_grad_(False)
    act.embed_style_vector.weight.requires_grad_(False)


def gr_mg_value_model(policy: nn.Module, spec: GRMGSpec) -> TemporalValueModel:
    """Makes a value model of the progress that a GR-MG predicts.

    It reads what the policy reads, writes ``"temporal_value"`` float32 [*B, 1], and can be
    calibrated like any other. The network is copied, so that fine-tuning the policy leaves it
    alone, and frozen.

    Args:
        policy: a policy built from the spec, or its :class:`GRMG`.
        spec: what the policy was built from.

    Returns:
        The value model.
    """
    network = copy.deepcopy(only_module(policy, GRMG)).requires_grad_(False)
    reader = GRMGProgress(network).eval()
    return TemporalValueModel(reader, in_keys=spec.in_keys, tokens_key=CLIP_TOKENS)
