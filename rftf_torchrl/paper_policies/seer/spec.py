"""A Seer policy as a description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.transforms import Compose, Transform

from rftf_torchrl import keys
from rftf_torchrl.paper_policies.blocks.clip_tokens import ClipTokens, tokenizer_files
from rftf_torchrl.paper_policies.blocks.frozen_features import kept_keys
from rftf_torchrl.paper_policies.blocks.inputs import (
    CLIP_TOKENS,
    Robot,
    check_chunk,
    check_robot,
    check_tokenizer,
    history_keys,
    history_of,
    robot_named,
    sizes_of,
    spans_of,
)
from rftf_torchrl.paper_policies.seer.actor import SeerActor
from rftf_torchrl.paper_policies.seer.checkpoint import load_seer_checkpoint
from rftf_torchrl.paper_policies.seer.config import SeerConfig
from rftf_torchrl.paper_policies.seer.network import Seer
from rftf_torchrl.policies.heads.arm_gripper import ARM_LOC, arm_gripper_actor


@dataclass(frozen=True)
class SeerSpec:
    """Everything that decides a Seer policy.

    The policy is normal for the arm, around the tanh of the network, and Bernoulli for the
    gripper; its chunk is what CALVIN takes as it is. The two encoders, which the authors did not
    train, and the picture decoder are frozen.

    Attributes:
        config: sizes of the network.
        chunk_size: actions per decision; the authors execute one.
        robot: ``"pose"`` (CALVIN) or ``"position"`` (Meta-World): what an arm's action moves, and
            the state holds.
        wrist: whether there is a gripper camera; where not, the static picture takes its place.
        files: CLIP's tokenizer, by file name; none hashes words, for text towers that were not
            pretrained.
        init_scale: initial standard deviation of the arm.
        learn_scale: whether it is learned.
        scale_bounds: its smallest and largest value.
        tokenizer: a folder with ``vocab.json`` and ``merges.txt``, from which the files are read.

    Raises:
        FileNotFoundError: if the tokenizer is not there.
        ValueError: if the chunk is longer than what the network predicts, or the robot has another
            action size than the network.

    Example:
        >>> spec = SeerSpec(SeerConfig.large(), chunk_size=3)
        >>> SeerSpec.from_dict(spec.to_dict()) == spec
        True
    """

    kind: ClassVar[str] = "seer"

    config: SeerConfig = field(default_factory=SeerConfig)
    chunk_size: int = 1
    robot: Robot = "pose"
    wrist: bool = True
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
        return [*history_keys(self.wrist), CLIP_TOKENS]

    def build(self) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights."""
        network = Seer(self.config)
        for frozen in (
            network.vision_encoder,
            network.clip_model,
            network.image_decoder_obs_pred_projector,
            network.image_decoder,
            network.image_decoder_norm,
            network.image_decoder_pred,
        ):
            frozen.requires_grad_(False)
        network.mask_token.requires_grad_(False)
        actor = SeerActor(network, self.robot, self.chunk_size, self.wrist)
        return arm_gripper_actor(
            TensorDictModule(
                actor,
                in_keys=[*self.in_keys, *kept_keys(actor.kept)],
                out_keys=[ARM_LOC, keys.LOGITS],
            ),
            chunk_size=self.chunk_size,
            arm_dim=self.config.arm_dim,
            init_scale=self.init_scale,
            learn_scale=self.learn_scale,
            scale_bounds=self.scale_bounds,
        )

    def load(self, source: str) -> ProbabilisticTensorDictSequential:
        """The policy with its authors' weights, see :func:`load_seer_checkpoint`.

        Args:
            source: a folder with ``<epoch>.pth``, ``mae_pretrain_vit_base.pth``, and
                ``ViT-B-32.pt`` or a folder ``clip-vit-base-patch32``.

        Raises:
            FileNotFoundError: if one is missing, or there are several epochs.
            ValueError: if the spec has no tokenizer.
        """
        check_tokenizer(self.files, source)
        folder = Path(source)
        epochs = sorted(file for file in folder.glob("*.pth") if file.stem.isdigit())
        if len(epochs) != 1:
            raise FileNotFoundError(
                f"{folder} must hold one checkpoint <epoch>.pth, it has "
                f"{[file.name for file in epochs]}."
            )
        clip = folder / "clip-vit-base-patch32"
        policy = self.build()
        load_seer_checkpoint(
            policy,
            epochs[0],
            mae=folder / "mae_pretrain_vit_base.pth",
            clip=clip if clip.is_dir() else folder / "ViT-B-32.pt",
        )
        return policy

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold, without the files."""
        found = asdict(self)
        del found["files"]
        return {**found, "scale_bounds": list(self.scale_bounds)}

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> SeerSpec:
        """The spec that :meth:`to_dict` described, with its ``"files"``.

        A config without ``arm_dim`` has that of the robot.
        """
        return cls(**{**spec, "config": SeerConfig.from_dict(sizes_of(spec))})

    def observation_transform(self) -> Transform:
        """Instruction tokens and history."""
        return Compose(
            ClipTokens(self.config.text, self.files),
            history_of(self.config.history, self.wrist),
        )

    def demonstration_batch(
        self,
        batch: TensorDictBase,
        frames: TensorDictBase,
        frame: Tensor,
        spans: Tensor,
        instructions: Sequence[str],
    ) -> TensorDictBase:
        """Adds to a batch of recorded frames what the policy reads of them.

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
        tokens = ClipTokens(self.config.text, self.files)
        batch[CLIP_TOKENS] = torch.stack([tokens.encode(text) for text in instructions])
        return batch
