"""The inference of ``transformers`` beside ours, and a policy back in its format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tensordict import NonTensorStack, TensorDict
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl import keys
from rftf_torchrl.policies.native import NativeComparison
from rftf_torchrl.policies.transformers_vla.backbone import load_backbone
from rftf_torchrl.policies.transformers_vla.processor import VLAProcessor
from rftf_torchrl.policies.transformers_vla.query_network import QueryNetwork
from rftf_torchrl.weights_file import write_safetensors

HEAD = "action_head.safetensors"
_BACKBONE = ".backbone."


def compare(
    spec: Any, policy: nn.Module, source: str, sentences: Sequence[str], size: int | None
) -> NativeComparison:
    """Actions of ``generate``, or where the head is ours, the model's logits after the prompt."""
    data = _observations(spec, sentences, size)
    processor = VLAProcessor.from_pretrained(
        source, spec.backbone, prompt=spec.prompt, image_options=spec.image_options
    )
    model: Any = load_backbone(source, spec.dtype).eval()
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    whole = spec.decoding == "autoregressive" and spec.head == "tokens" and spec.state_dim is None
    native = []
    for row, sentence in enumerate(sentences):
        arguments = _native_inputs(processor, _pictures(spec, data[row]), sentence)
        if whole:
            native.append(_generated(spec, model, arguments))
        else:
            native.append(model(**arguments).logits[0, -1].float())
    data = spec.observation_transform()(data)
    if whole:
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            ours = policy(data)[keys.CHUNK]
    else:
        ours = _logits(policy, data)
    what = "actions" if whole else "logits after the prompt"
    return NativeComparison(what, ours, torch.stack(native), _in_use(spec, processor, data))


def export(spec: Any, policy: nn.Module, folder: Path) -> None:
    """Model, tokenizer and image processor as ``save_pretrained`` writes them, and our head."""
    network: Any = _network(policy)
    network.backbone.save_pretrained(folder)
    processor = spec.processor()
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    own = {name: value for name, value in policy.state_dict().items() if _BACKBONE not in name}
    write_safetensors(folder / HEAD, own, {"policy": json.dumps(spec.to_dict())})


def _network(policy: nn.Module) -> QueryNetwork:
    return next(module for module in policy.modules() if isinstance(module, QueryNetwork))


def _observations(spec: Any, sentences: Sequence[str], size: int | None) -> TensorDict:
    generator = torch.Generator().manual_seed(0)
    count, edge = len(sentences), size or 224
    data = TensorDict(batch_size=[count])
    for key in (keys.IMAGE, keys.WRIST_IMAGE)[: 1 + spec.wrist_image]:
        picture = torch.randint(0, 256, (count, 3, edge, edge), generator=generator)
        data.set(key, picture.to(torch.uint8))
    if spec.state_dim is not None:
        data.set(keys.STATE, torch.randn(count, spec.state_dim, generator=generator))
    data.set(keys.INSTRUCTION_TEXT, NonTensorStack(*sentences))
    return data


def _pictures(spec: Any, row: Any) -> list[Any]:
    names = (keys.IMAGE, keys.WRIST_IMAGE)[: 1 + spec.wrist_image]
    return [row[name].numpy() for name in names]


def _native_inputs(
    processor: VLAProcessor, pictures: list[Any], sentence: str
) -> dict[str, Tensor]:
    """One observation as the model's own image processor and tokenizer prepare it."""
    family = processor.family
    seen = processor.image_processor(
        [pictures] if family.nested else pictures,
        return_tensors="pt",
        input_data_format="channels_first",
        **processor.image_options,
    )
    counts = family.tokens(processor.config, processor.image_processor, seen)
    ids = torch.tensor([processor.tokens_of(sentence, counts)])
    arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **seen}
    if family.prefix_types:
        arguments["token_type_ids"] = torch.zeros_like(ids)
    if family.grid:
        arguments["mm_token_type_ids"] = (ids == processor.image_token_id).int()
    return arguments


def _generated(spec: Any, model: Any, arguments: dict[str, Tensor]) -> Tensor:
    """The chunk of the model's own greedy decoding among the action tokens."""
    tokens = list(spec.action_tokens)
    count = spec.chunk_size * spec.action_dim
    drawn = model.generate(
        **arguments,
        do_sample=False,
        max_new_tokens=count,
        min_new_tokens=count,
        prefix_allowed_tokens_fn=lambda *_: tokens,
    )[0, -count:]
    bins = torch.tensor([tokens.index(int(token)) for token in drawn])
    edge = len(tokens) / (len(tokens) - 1)
    action: Tensor = -edge + (bins + 0.5) * (2 * edge / len(tokens))
    return action.reshape(spec.chunk_size, spec.action_dim)


def _logits(policy: nn.Module, data: Any) -> Tensor:
    network: Any = _network(policy)
    features = next(m for m in policy.modules() if hasattr(m, "prompt") and m is not network)
    prompt: Any = features.prompt(data)  # type: ignore[operator]
    last = 1 if network.state_dim is None else 2  # behind the prompt stands the state
    hidden = network.run(prompt, last=last)[:, 0]
    found: Tensor = network.backbone.get_output_embeddings()(hidden).float()
    return found


def _in_use(spec: Any, processor: VLAProcessor, data: Any) -> dict[str, str]:
    shown = " x ".join(map(str, data[keys.IMAGE].shape[-2:]))
    seen = " x ".join(map(str, data[keys.VLA_INPUTS, "pixel_values"].shape[2:]))
    mean, std = (", ".join(f"{n:g}" for n in part) for part in (spec.image_mean, spec.image_std))
    rows = {
        "image": f"{shown}, which the model sees as {seen}",
        "statistics of images": f"scaled by {spec.rescale:g}, mean {mean}, deviation {std}",
        "prompt": repr(processor.prompt),
    }
    if spec.head == "tokens":
        rows["statistics of actions"] = f"{len(spec.action_tokens)} bins, centres from -1 to 1"
    return rows
