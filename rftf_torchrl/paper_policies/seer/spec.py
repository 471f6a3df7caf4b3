"""A Seer policy as a description."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import nn
from torchrl.envs.transforms import Compose, Transform

from rftf_torchrl.paper_policies.blocks.clip_tokens import ClipTokens
from rftf_torchrl.paper_policies.blocks.spec import PaperPolicySpec
from rftf_torchrl.paper_policies.seer.actor import SeerActor
from rftf_torchrl.paper_policies.seer.checkpoint import (
    load_seer_checkpoint,
    write_seer_checkpoint,
)
from rftf_torchrl.paper_policies.seer.config import SeerConfig
from rftf_torchrl.paper_policies.seer.network import Seer


@dataclass(frozen=True)
class SeerSpec(PaperPolicySpec):
    """Everything that decides a Seer policy; its attributes are those of :class:`PaperPolicySpec`.

    The policy is normal for the arm, around the tanh of the network, and Bernoulli for the
    gripper; its chunk is what CALVIN takes as it is. The two encoders, which the authors did not
    train, and the image decoder are frozen.

    :meth:`load` reads a folder with ``<epoch>.pth``, ``mae_pretrain_vit_base.pth``, and
    ``ViT-B-32.pt`` or a folder ``clip-vit-base-patch32``.

    Example:
        >>> spec = SeerSpec(SeerConfig.large(), chunk_size=3)
        >>> SeerSpec.from_dict(spec.to_dict()) == spec
        True
    """

    kind: ClassVar[str] = "seer"
    config_class: ClassVar[type[SeerConfig]] = SeerConfig

    config: SeerConfig = field(default_factory=SeerConfig)

    def actor(self) -> nn.Module:
        """The network, with frozen encoders and image decoder."""
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
        return SeerActor(network, self.chunk_size, self.wrist)

    def fill(self, policy: nn.Module, source: str) -> None:
        """Reads the authors' weights, see :func:`load_seer_checkpoint`.

        Raises:
            FileNotFoundError: if a file is missing, or there are several epochs.
        """
        trained, mae, clip = _files(Path(source))
        load_seer_checkpoint(policy, trained, mae=mae, clip=clip)

    def write(self, policy: nn.Module, source: str, folder: Path) -> Path:
        """Writes the authors' file again, under its name, beside copies of the towers' files."""
        trained, *towers = _files(Path(source))
        write_seer_checkpoint(policy, trained, folder / trained.name)
        for file in towers:
            copy = shutil.copytree if file.is_dir() else shutil.copyfile
            copy(file, folder / file.name)
        return folder

    def observation_transform(self) -> Transform:
        """Instruction tokens and history."""
        return Compose(ClipTokens(self.config.text, self.files), self.history())


def _files(folder: Path) -> tuple[Path, Path, Path]:
    """The authors' file in a folder, and those of the two towers."""
    epochs = sorted(file for file in folder.glob("*.pth") if file.stem.isdigit())
    if len(epochs) != 1:
        raise FileNotFoundError(
            f"{folder} must hold one checkpoint <epoch>.pth, it has "
            f"{[file.name for file in epochs]}."
        )
    clip = folder / "clip-vit-base-patch32"
    clip = clip if clip.is_dir() else folder / "ViT-B-32.pt"
    return epochs[0], folder / "mae_pretrain_vit_base.pth", clip
