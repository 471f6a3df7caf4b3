"""CLIP's text tower from ``transformers``, filled from whichever file holds it."""

from __future__ import annotations

import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rftf_torchrl.digests import bytes_digest
from rftf_torchrl.optional import transformers_module
from rftf_torchrl.paper_policies.blocks.checkpoint import Source, load_tensors, read_file


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes of CLIP's text tower; the defaults are those of ViT-B/32.

    Attributes:
        vocab_size: token ids; the last two are the start and the end token.
        context: longest instruction in tokens, both ends counted.
        width: features of a token.
        layers: number of blocks.
        heads: attention heads.
        dim: features of the instruction.
    """

    vocab_size: int = 49408
    context: int = 77
    width: int = 512
    layers: int = 12
    heads: int = 8
    dim: int = 512

    @property
    def start_token(self) -> int:
        """The token that begins an instruction."""
        return self.vocab_size - 2

    @property
    def end_token(self) -> int:
        """The token that ends an instruction."""
        return self.vocab_size - 1


class ClipText(nn.Module):
    """Instruction features, float32, as OpenAI's ``encode_text`` gives them."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        transformers = transformers_module("CLIP's text tower")
        self.config = config
        self.model = transformers.CLIPTextModelWithProjection(
            transformers.CLIPTextConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.width,
                intermediate_size=4 * config.width,
                projection_dim=config.dim,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.context,
                hidden_act="quick_gelu",
                bos_token_id=config.start_token,
                eos_token_id=config.end_token,
                pad_token_id=0,
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens int64 [N, T] to features [N, dim].

        Raises:
            ValueError: if there are too many tokens, or a row has no end token.
        """
        if tokens.shape[-1] > self.config.context:
            raise ValueError(
                f"an instruction has {tokens.shape[-1]} tokens, and CLIP's text tower takes "
                f"{self.config.context}: build the environment with the policy's "
                "observation_transform()."
            )
        ends = tokens == self.config.end_token
        if not bool(ends.any(-1).all()):
            raise ValueError(
                f"an instruction has no end token {self.config.end_token}, so it was not tokenized "
                "for CLIP: build the environment with the policy's observation_transform()."
            )
        last = int(ends.float().argmax(-1).max()) + 1  # what follows an end is seen by nothing
        embeds: Tensor = self.model(input_ids=tokens[:, :last]).text_embeds
        return embeds.float()


def openai_sources(config: ClipTextConfig) -> dict[str, Source]:
    """Where each parameter of :class:`ClipText` lies under OpenAI's names."""
    theirs = {
        "text_model.embeddings.token_embedding.weight": Source("token_embedding.weight"),
        "text_model.embeddings.position_embedding.weight": Source("positional_embedding"),
        "text_projection.weight": Source("text_projection", transpose=True),
    }
    pairs = [("text_model.final_layer_norm", "ln_final")]
    for i in range(config.layers):
        here, there = f"text_model.encoder.layers.{i}", f"transformer.resblocks.{i}"
        pairs += [
            (f"{here}.layer_norm1", f"{there}.ln_1"),
            (f"{here}.layer_norm2", f"{there}.ln_2"),
            (f"{here}.self_attn.out_proj", f"{there}.attn.out_proj"),
            (f"{here}.mlp.fc1", f"{there}.mlp.c_fc"),
            (f"{here}.mlp.fc2", f"{there}.mlp.c_proj"),
        ]
        for kind in ("weight", "bias"):
            for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
                theirs[f"{here}.self_attn.{name}.{kind}"] = Source(
                    f"{there}.attn.in_proj_{kind}", third=part
                )
    for here, there in pairs:
        for kind in ("weight", "bias"):
            theirs[f"{here}.{kind}"] = Source(f"{there}.{kind}")
    return {f"model.{name}": source for name, source in theirs.items()}


OPENAI_UNUSED = ("visual.", "logit_scale", "input_resolution", "context_length", "vocab_size")
"""Beginnings of the names in OpenAI's file that the text tower does not need."""


OPENAI_SHA256 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
"""Of OpenAI's ``ViT-B-32.pt``, from the address of the file."""


def _is_torchscript(path: str | os.PathLike[str]) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or "constants.pkl" in name for name in archive.namelist())


def load_clip(tower: ClipText, path: str | os.PathLike[str], *, weights_only: bool = True) -> None:
    """Copies CLIP's parameters into the tower.

    Args:
        tower: the text tower.
        path: OpenAI's TorchScript archive, a saved state dict with its names, or a folder of
            ``transformers``.
        weights_only: see :func:`torch.load`. A TorchScript archive runs code when it is read, so
            only the one that OpenAI published is.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if a parameter is missing, unexpected or of another shape, or an archive is not
            OpenAI's.
    """
    if os.path.isdir(path):
        model_class = transformers_module("CLIP's text tower").CLIPTextModelWithProjection
        tensors = model_class.from_pretrained(path).state_dict()
        sources = {name: Source(name) for name in tower.model.state_dict()}
        load_tensors(tower.model, tensors, sources, where=str(path))
        return
    if _is_torchscript(path):
        if weights_only and bytes_digest(Path(path).read_bytes()) != OPENAI_SHA256:
            raise ValueError(
                f"{path} is a TorchScript archive, which runs code when it is read, and not the "
                "one that OpenAI published. Give a folder of transformers, or a state dict; or, "
                "if you trust whoever wrote it, pass weights_only=False."
            )
        with warnings.catch_warnings():  # TorchScript is deprecated, and is what OpenAI released
            warnings.simplefilter("ignore", DeprecationWarning)
            tensors = torch.jit.load(path, map_location="cpu").state_dict()
    else:
        tensors = dict(read_file(path, weights_only=weights_only))
    sources = openai_sources(tower.config)
    load_tensors(tower, tensors, sources, unused=OPENAI_UNUSED, where=str(path))
