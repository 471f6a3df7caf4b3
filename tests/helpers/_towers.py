"""Tiny random checkpoints of the real classes, saved as their users would have them."""

import json

import pytest
import torch

pytest.importorskip("transformers")

from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipModel,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
VISION = {**SIZES, "image_size": 32, "patch_size": 8}
TEXT = {
    **SIZES,
    "vocab_size": 64,
    "max_position_embeddings": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def tiny(name):
    """A random model as it is published: with both towers or its pretraining head."""
    if name == "siglip":
        return SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT))
    if name == "clip":
        return CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT))
    if name == "dinov2":
        return Dinov2Model(Dinov2Config(**VISION))
    if name == "vit_mae":
        decoder = {f"decoder_{key}": size for key, size in SIZES.items()}
        return ViTMAEForPreTraining(ViTMAEConfig(**VISION, **decoder))
    return BertModel(BertConfig(**TEXT))


def saved(name, folder, **pictures):
    """Save a tiny model and what its image processor would write; returns model and folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # not the seed of the test that happens to come first
        model = tiny(name).eval()
    model.save_pretrained(folder)
    if pictures:
        (folder / "preprocessor_config.json").write_text(json.dumps(pictures), encoding="utf-8")
    return model, str(folder)


def tokenizer():
    """Words of the tests and documents as tokens of the tiny text towers."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[END]", "open", "close", "the", "window"]
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]")
