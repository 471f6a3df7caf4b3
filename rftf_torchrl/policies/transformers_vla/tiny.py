"""Tiny random models with tokenizer and image processor, to try the real code without a hub."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Literal

import torch

from rftf_torchrl.optional import optional_module, transformers_module

_SPECIAL = (
    "<pad>", "<unk>", "<bos>", "<image>", "<fake_token_around_image>", "<global-img>",
    "<end_of_utterance>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>",
    "<|video_pad|>", "<|vision_end|>",
)  # fmt: skip
_WORDS = (
    "what action should the robot take to open close a push pull turn lift move slide drawer "
    "window door faucet button block red blue pink left right up down user assistant"
)
_VOCABULARY = 320


def save_tiny_vlm(
    folder: str | Path,
    family: Literal["smolvlm", "idefics3", "paligemma", "qwen2_5_vl", "qwen3_vl"] = "smolvlm",
    *,
    hidden_size: int = 32,
    image_size: int = 28,
    seed: int = 0,
) -> Path:
    """Write a model of random weights as ``save_pretrained`` does, with all that belongs to it.

    Args:
        folder: where; made if missing.
        family: the ``model_type``.
        hidden_size: of the language model and the vision tower, a multiple of 16.
        image_size: edge of the images that the model sees, a multiple of 14.
        seed: of the weights.

    Returns:
        The folder, as ``from_pretrained`` takes it.

    Raises:
        ValueError: at another family.
    """
    transformers = transformers_module("this policy")
    config = _config(family, hidden_size, image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        known = transformers.AutoConfig.for_model(**config)
        model = transformers.AutoModelForImageTextToText.from_config(known)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    _image_processor(family, image_size).save_pretrained(folder)
    return Path(folder)


def _tokenizer() -> Any:
    transformers = transformers_module("this policy")
    tokenizers = optional_module("tokenizers", "transformers", "this policy")
    listed = [*_SPECIAL, *dict.fromkeys([*_WORDS.split(), *string.punctuation])]
    listed += [f"<action{number}>" for number in range(_VOCABULARY - len(listed))]
    vocabulary = {word: number for number, word in enumerate(listed)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        extra_special_tokens=list(_SPECIAL[3:]),
    )


def _image_processor(family: str, image_size: int) -> Any:
    def made(module: str, name: str, **options: Any) -> Any:
        place = f"transformers.models.{module}.image_processing_pil_{module}"
        return getattr(optional_module(place, "transformers"), name)(**options)

    if family in ("smolvlm", "idefics3"):
        size = {"longest_edge": image_size}
        options = {"max_image_size": size, "do_image_splitting": False}
        return made("smolvlm", "SmolVLMImageProcessorPil", size=size, **options)
    if family == "paligemma":
        size = {"height": image_size, "width": image_size}
        return made("siglip", "SiglipImageProcessorPil", size=size)
    size = {"shortest_edge": image_size**2, "longest_edge": image_size**2}
    return made("qwen2_vl", "Qwen2VLImageProcessorPil", patch_size=7, size=size)


def _config(family: str, width: int, image_size: int) -> dict[str, Any]:
    text: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": width // 2,
        "vocab_size": _VOCABULARY,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 6,
    }
    vision: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": 7,
    }
    if family in ("smolvlm", "idefics3"):
        return {
            "model_type": family,
            "text_config": {"model_type": "llama", **text},
            "vision_config": vision,
            "image_token_id": 3,
            "scale_factor": 2,
            "tie_word_embeddings": False,
        }
    if family == "paligemma":
        vision |= {"model_type": "siglip_vision_model", "vision_use_head": False}
        return {
            "model_type": family,
            "text_config": {"model_type": "gemma", **text},
            "vision_config": {**vision, "projection_dim": width},
            "projection_dim": width,
            "hidden_size": width,
            "image_token_id": 3,
        }
    rope = {"rope_type": "default", "mrope_section": [width // 16, width // 16, width // 8]}
    text |= {"rope_parameters": {**rope, "rope_theta": 10000.0}}
    vision = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "depth": 2,
        "num_heads": 2,
        "patch_size": 7,
        "out_hidden_size": width,
    }
    ids = {"vision_start_token_id": 9, "image_token_id": 10, "video_token_id": 11}
    if family == "qwen2_5_vl":
        vision |= {"window_size": 28, "fullatt_block_indexes": [1]}
        return {"model_type": family, "text_config": text, "vision_config": vision, **ids}
    if family == "qwen3_vl":
        vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        return {"model_type": family, "text_config": text, "vision_config": vision, **ids}
    raise ValueError(f"no tiny model of the family {family!r}.")
