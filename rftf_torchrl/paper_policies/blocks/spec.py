"""What the specs of GR-MG and Seer share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.history import ObservationHistory
from rftf_torchrl.paper_policies.blocks.clip_tokens import ClipTokens, tokenizer_files
from rftf_torchrl.paper_policies.blocks.config import NetworkConfig
from rftf_torchrl.paper_policies.blocks.inputs import (
    CLIP_TOKENS,
    history_keys,
    history_of,
    kept_keys,
    spans_of,
)
from rftf_torchrl.policies.heads.arm_gripper import ARM_LOC, arm_gripper_actor
from rftf_torchrl.policies.settings import PolicyConfig, Sizes
from rftf_torchrl.settings import Count, Positive, setting_problems, unknown_settings

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class PaperPolicySpec(ABC):
    """A policy that is normal for the arm and Bernoulli for the gripper.

    Its fields are ``policy.options`` of a run, which fills in ``chunk_size``, ``wrist`` and the
    size of the arm.

    Attributes:
        config: sizes of the network.
        chunk_size: actions per decision; the authors execute one.
        wrist: whether there is a gripper camera; where not, the static image takes its place.
        init_scale: initial standard deviation of the arm.
        learn_scale: whether it is learned.
        scale_bounds: its smallest and largest value.
        files: CLIP's tokenizer, by file name; none hashes words, for text towers that were not
            pretrained.
        tokenizer: a folder with ``vocab.json`` and ``merges.txt``, from which the files are read.

    Raises:
        FileNotFoundError: if the tokenizer is not there.
        ValueError: if the chunk is longer than what the network predicts.
    """

    kind: ClassVar[str]
    pretrained_on: ClassVar[str] = "disk"
    config_class: ClassVar[type[NetworkConfig]]

    config: Any
    chunk_size: Count = 1
    wrist: bool = True
    init_scale: Positive = 0.1
    learn_scale: bool = True
    scale_bounds: tuple[Positive, Positive] = (0.02, 1.0)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    tokenizer: InitVar[str | None] = None

    def __post_init__(self, tokenizer: str | None) -> None:
        if tokenizer is not None:
            object.__setattr__(self, "files", tokenizer_files(tokenizer))
        if not 1 <= self.chunk_size <= self.config.act_len:
            raise ValueError(
                f"chunk_size must be from 1 to config.act_len = {self.config.act_len}, the actions "
                f"that the network predicts, got {self.chunk_size}."
            )
        low, high = self.scale_bounds
        if not low <= self.init_scale <= high:
            raise ValueError(
                f"init_scale must lie within scale_bounds, {low} to {high}, got {self.init_scale}."
            )
        object.__setattr__(self, "scale_bounds", tuple(self.scale_bounds))

    @classmethod
    def problems(cls, settings: PolicyConfig, sizes: Sizes) -> list[str]:
        """What is wrong with a run's settings."""
        entries = {"chunk_size": sizes.chunk_size, "wrist": sizes.wrist, **settings.options}
        tokenizer = entries.pop("tokenizer", None)
        if settings.path is not None:  # which has the rest
            return unknown_settings(cls, entries, "policy.options.")
        problems = setting_problems(cls, entries, "policy.options.")
        if sizes.image_size is None:
            problems.append(f"env.image_size=null: policy.kind={cls.kind} needs images")
        if settings.pretrained and not settings.random_weights and not tokenizer:
            problems.append(
                f"policy.pretrained: the weights of policy.kind={cls.kind} were trained on CLIP's "
                "tokens, give policy.options.tokenizer=<folder with CLIP's vocab.json and "
                "merges.txt>"
            )
        return problems

    @classmethod
    def from_run(cls, settings: PolicyConfig, sizes: Sizes) -> Self:
        """The spec of a run's policy; its arm is the environment's.

        Raises:
            ValueError: if the network is for another arm.
        """
        entries = {"chunk_size": sizes.chunk_size, "wrist": sizes.wrist, **settings.options}
        arm_dim = sizes.action_dim - 1
        config = {"arm_dim": arm_dim, **entries.get("config", {})}
        spec = cls.from_dict({**entries, "config": config})
        if spec.config.arm_dim != arm_dim:
            raise ValueError(
                f"an action of {sizes.robot} has {arm_dim} numbers for the arm and one for the "
                f"gripper, but policy.options.config.arm_dim is {spec.config.arm_dim}: leave it "
                "out."
            )
        return spec

    @property
    def action_dim(self) -> int:
        """Size of an action: the arm and the gripper."""
        return int(self.config.arm_dim) + 1

    @property
    def in_keys(self) -> list[NestedKey]:
        """What the policy reads."""
        return [*history_keys(self.wrist), CLIP_TOKENS]

    @abstractmethod
    def actor(self) -> nn.Module:
        """The network with fresh weights, reading :attr:`in_keys`; parts may be frozen."""

    @abstractmethod
    def fill(self, policy: nn.Module, source: str) -> None:
        """Reads the authors' weights into a policy."""

    @abstractmethod
    def write(self, policy: nn.Module, source: str, folder: Path) -> Path:
        """Writes a policy into copies of the authors' files, and says where :meth:`fill` reads."""

    @nested_keys
    def build(self, *written: NestedKey) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights; `written` are entries of its actor's besides the chunk."""
        actor: Any = self.actor()
        return arm_gripper_actor(
            TensorDictModule(
                actor,
                in_keys=[*self.in_keys, *kept_keys(actor.kept)],
                out_keys=[ARM_LOC, keys.LOGITS, *written],
            ),
            chunk_size=self.chunk_size,
            arm_dim=self.config.arm_dim,
            init_scale=self.init_scale,
            learn_scale=self.learn_scale,
            scale_bounds=self.scale_bounds,
        )

    def load(self, source: str) -> ProbabilisticTensorDictSequential:
        """The policy with its authors' weights.

        Args:
            source: a file or folder, see the class.

        Raises:
            FileNotFoundError: if something is missing.
            ValueError: if the weights do not fit, or the spec has no tokenizer and would hash the
                words of the instruction.
        """
        if not self.files:
            raise ValueError(
                f"the weights in {source} were trained on CLIP's tokens, and this policy has no "
                "tokenizer, so that it would hash the words of its instruction: give the spec "
                "tokenizer=<folder with CLIP's vocab.json and merges.txt> (in the recipes "
                "policy.options.tokenizer=<folder>)."
            )
        policy = self.build()
        self.fill(policy, source)
        return policy

    def export(self, policy: nn.Module, folder: Path, source: str | None) -> None:
        """Writes what :meth:`load` and the authors' code read; see :func:`export_policy`.

        Parts of `source` that the policy does not have stay as they are. The deviation of the arm
        is left out: the authors have none.

        Raises:
            ValueError: without a source, or if it cannot hold the policy's numbers bit for bit.
        """
        if source is None:
            raise ValueError(
                f"a policy of the kind {self.kind!r} goes back into its authors' files, of which "
                "it has not every part: name what it was loaded from (in the recipes "
                "policy.pretrained=<file or folder>)."
            )
        again: Any = self.build()
        self.fill(again, str(self.write(policy, source, folder)))
        written, first = again[0].state_dict(), cast("Any", policy)[0]
        lost = [n for n, v in first.state_dict().items() if not torch.equal(v, written[n])]
        if lost:
            raise ValueError(
                f"the format of {source} cannot hold this policy bit for bit: {len(lost)} of its "
                f"tensors come back otherwise, the first is {lost[0]}. Its frozen encoders have to "
                "be those of these files, whose numbers must not be less precise than the policy's."
            )

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold, without the files."""
        found = asdict(self)
        del found["files"]
        return found

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> Self:
        """The spec that :meth:`to_dict` described, with its ``"files"``."""
        entries = {name: value for name, value in spec.items() if name != "robot"}  # older files'
        return cls(**{**entries, "config": cls.config_class.from_dict(spec.get("config", {}))})

    def history(self) -> ObservationHistory:
        """The transform that writes the window of observations."""
        return history_of(self.config.history, self.wrist)

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
            instructions: M instructions.

        Returns:
            The batch.
        """
        start = spans_of(frame, spans)[:, 0]
        batch.update(self.history().windows_of(frames, frame, start))
        batch[CLIP_TOKENS] = torch.stack([self._tokens.encode(text) for text in instructions])
        return batch

    @cached_property
    def _tokens(self) -> ClipTokens:
        """Loaded once, and remembers the sentences."""
        return ClipTokens(self.config.text, self.files)
