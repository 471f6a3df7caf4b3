"""A GR-MG policy as a description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass, field
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.transforms import Compose, Transform

from rftf_torchrl import keys
from rftf_torchrl.functional.poses import world_to_tool
from rftf_torchrl.paper_policies.blocks.clip_tokens import ClipTokens, tokenizer_files
from rftf_torchrl.paper_policies.blocks.frozen_features import kept_keys
from rftf_torchrl.paper_policies.blocks.inputs import (
    CLIP_TOKENS,
    GOAL_IMAGE,
    Robot,
    check_chunk,
    check_robot,
    check_tokenizer,
    history_keys,
    history_of,
    robot_named,
    robot_pose,
    sizes_of,
    spans_of,
)
from rftf_torchrl.paper_policies.gr_mg.actor import GRMGActor
from rftf_torchrl.paper_policies.gr_mg.checkpoint import load_gr_mg_checkpoint
from rftf_torchrl.paper_policies.gr_mg.config import GRMGConfig
from rftf_torchrl.paper_policies.gr_mg.goal_images import (
    PROGRESS,
    GoalImageProvider,
    GoalImages,
    current_frame,
)
from rftf_torchrl.paper_policies.gr_mg.network import GRMG
from rftf_torchrl.paper_policies.gr_mg.tool_actions import ToolFrameActions
from rftf_torchrl.policies.heads.arm_gripper import ARM_LOC, arm_gripper_actor


@dataclass(frozen=True)
class GRMGSpec:
    """Everything that decides a GR-MG policy.

    The policy is normal for the arm and Bernoulli for the gripper, in the network's own action
    space: the gripper's frame, scaled. The environment's transform turns what was sampled into
    CALVIN's actions; see :class:`ToolFrameActions`. Parts that do not feed the action, and the two
    encoders, which were not trained either, are frozen.

    Attributes:
        config: sizes of the network.
        chunk_size: actions per decision; the authors execute one.
        robot: ``"pose"`` (CALVIN) or ``"position"`` (Meta-World): what an arm's action moves, and
            the state holds; the actions of a pose change frame.
        wrist: whether there is a gripper camera; where not, the static picture takes its place.
        files: CLIP's tokenizer, by file name; none hashes words, for text towers that were not
            pretrained.
        goal_every: decisions between two goal images; the authors' is 20.
        wrap_rotation: see :class:`ToolFrameActions`.
        init_scale: initial standard deviation of the arm.
        learn_scale: whether it is learned.
        scale_bounds: its smallest and largest value.
        tokenizer: a folder with ``vocab.json`` and ``merges.txt``, from which the files are read.

    Raises:
        FileNotFoundError: if the tokenizer is not there.
        ValueError: if the chunk is longer than what the network predicts, or the robot has another
            action size than the network.

    Example:
        >>> spec = GRMGSpec(chunk_size=2)
        >>> GRMGSpec.from_dict(spec.to_dict()) == spec
        True
    """

    kind: ClassVar[str] = "gr_mg"

    config: GRMGConfig = field(default_factory=GRMGConfig)
    chunk_size: int = 1
    robot: Robot = "pose"
    wrist: bool = True
    goal_every: int = 20
    wrap_rotation: bool = True
    init_scale: float = 0.1
    learn_scale: bool = True
    scale_bounds: tuple[float, float] = (0.02, 1.0)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    tokenizer: InitVar[str | None] = None

    def __post_init__(self, tokenizer: str | None) -> None:
        if tokenizer is not None:
            object.__setattr__(self, "files", tokenizer_files(tokenizer))
        object.__setattr__(self, "robot", robot_named(self.robot))
        check_robot(self.robot, self.config.arm_dim)
        check_chunk(self.chunk_size, self.config.act_len)
        object.__setattr__(self, "scale_bounds", tuple(self.scale_bounds))

    @property
    def action_dim(self) -> int:
        """Size of an action: the arm and the gripper."""
        return self.config.arm_dim + 1

    @property
    def in_keys(self) -> list[NestedKey]:
        """What the policy reads."""
        return [*history_keys(self.wrist), GOAL_IMAGE, CLIP_TOKENS]

    def build(self) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights.

        It also writes ``"progress"`` float32 [*B, 1], by its own progress head.
        """
        network = GRMG(self.config)
        _freeze(network)
        actor = GRMGActor(network, self.robot, self.chunk_size, self.wrist)
        return arm_gripper_actor(
            TensorDictModule(
                actor,
                in_keys=[*self.in_keys, *kept_keys(actor.kept)],
                out_keys=[ARM_LOC, keys.LOGITS, PROGRESS],
            ),
            chunk_size=self.chunk_size,
            arm_dim=self.config.arm_dim,
            init_scale=self.init_scale,
            learn_scale=self.learn_scale,
            scale_bounds=self.scale_bounds,
        )

    def load(self, source: str) -> ProbabilisticTensorDictSequential:
        """The policy with the weights of its authors' file, see :func:`load_gr_mg_checkpoint`.

        Raises:
            ValueError: if the spec has no tokenizer.
        """
        check_tokenizer(self.files, source)
        policy = self.build()
        load_gr_mg_checkpoint(policy, source)
        return policy

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold, without the files."""
        found = asdict(self)
        del found["files"]
        return {**found, "scale_bounds": list(self.scale_bounds)}

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> GRMGSpec:
        """The spec that :meth:`to_dict` described, with its ``"files"``.

        A config without ``arm_dim`` has that of the robot.
        """
        return cls(**{**spec, "config": GRMGConfig.from_dict(sizes_of(spec))})

    def observation_transform(self, goal_images: GoalImageProvider = current_frame) -> Transform:
        """Instruction tokens, history, goal image and the change of the action's frame.

        Args:
            goal_images: see :class:`GoalImages`; by default the stand-in :func:`current_frame`.
        """
        parts = [
            ClipTokens(self.config.text, self.files),
            history_of(self.config.history, self.wrist),
            GoalImages(goal_images, self.goal_every),
        ]
        if self.robot == "pose":
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
        environment's action space into the policy's.

        Args:
            batch: examples, batch [M]; changed in place.
            frames: all recorded frames in order of time, batch [N].
            frame: int64 [M], the frame of each example.
            spans: int64 [E, 2], first frame of each episode and the one after its last, in order
                of time.
            instructions: M sentences.

        Returns:
            The batch.
        """
        span = spans_of(frame, spans)
        batch.update(
            history_of(self.config.history, self.wrist).windows_of(frames, frame, span[:, 0])
        )
        batch[GOAL_IMAGE] = frames[keys.IMAGE][span[:, 1] - 1]
        tokens = ClipTokens(self.config.text, self.files)
        batch[CLIP_TOKENS] = torch.stack([tokens.encode(text) for text in instructions])
        chunk = batch.get(keys.CHUNK, None)
        if chunk is not None and self.robot == "pose":
            pose, _ = robot_pose(frames[keys.STATE][frame], "pose")
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
