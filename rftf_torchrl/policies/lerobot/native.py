"""LeRobot's own inference beside ours, and a policy back in LeRobot's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tensordict import NonTensorStack, TensorDict
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl import keys
from rftf_torchrl.optional import optional_module
from rftf_torchrl.policies.lerobot.actor import FLOW, LeRobotMean
from rftf_torchrl.policies.lerobot.processors import refuse_foreign_steps
from rftf_torchrl.policies.native import NativeComparison


def compare(
    spec: Any, policy: nn.Module, source: str, sentences: Sequence[str], size: int | None
) -> NativeComparison:
    """Preprocessor, chunk and postprocessor, here and as LeRobot loads them from `source`."""
    data = _observations(spec, sentences, size)
    native = _native_chunk(spec, data, source, sentences)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        ours = policy(spec.observation_transform()(data))[keys.CHUNK]
    return NativeComparison("actions", ours, native[:, : ours.shape[1]], _in_use(spec, data))


def export(spec: Any, policy: nn.Module, folder: Path) -> None:
    """What LeRobot's ``from_pretrained`` reads: policy, preprocessor and postprocessor."""
    mean = next(module for module in policy.modules() if isinstance(module, LeRobotMean))
    inner: Any = mean.policy
    inner.save_pretrained(folder)
    config = spec.lerobot_config()
    config.device = spec.config.get("device", "cpu")
    if getattr(config, "temporal_ensemble_coeff", None) is None and spec.chunk_size is not None:
        config.n_action_steps = spec.chunk_size  # what fine-tuning executed of a chunk
    config._save_pretrained(folder)
    for processor in spec.processors():
        processor.save_pretrained(folder)


def _observations(spec: Any, sentences: Sequence[str], size: int | None) -> TensorDict:
    """Noise of the sizes that the checkpoint names, states as its statistics have them."""
    generator = torch.Generator().manual_seed(0)
    count = len(sentences)
    data = TensorDict(batch_size=[count])
    for name, key in spec.inputs.items():
        feature = spec.config["input_features"][name]
        shape = tuple(feature["shape"])
        if feature["type"] == "VISUAL":
            shape = shape if size is None else (shape[0], size, size)
            value = torch.randint(0, 256, (count, *shape), generator=generator).to(torch.uint8)
        else:
            stats = {each: torch.tensor(s) for each, s in spec.stats.get(name, {}).items()}
            low, high = stats.get("min"), stats.get("max")
            if low is not None and high is not None:
                value = low + (high - low) * torch.rand(count, *shape, generator=generator)
            else:
                noise = torch.randn(count, *shape, generator=generator)
                value = stats.get("mean", torch.zeros(())) + stats.get("std", 1) * noise
        data.set(key, value)
    if spec.text_key is not None:
        data.set(spec.text_key, NonTensorStack(*sentences))
    return data


def _native_chunk(spec: Any, data: TensorDict, source: str, sentences: Sequence[str]) -> Tensor:
    factory = optional_module("lerobot.policies.factory", "lerobot")
    config = optional_module("lerobot.configs.policies", "lerobot").PreTrainedConfig
    config = config.from_pretrained(source)
    config.device = "cpu"
    policy = factory.get_policy_class(config.type).from_pretrained(source, config=config)
    on_cpu = {"device_processor": {"device": "cpu"}}
    refuse_foreign_steps(source)
    before, after = factory.make_pre_post_processors(
        config,
        pretrained_path=source,
        preprocessor_overrides=on_cpu,
        postprocessor_overrides=on_cpu,
    )
    batch: dict[str, Any] = {name: data.get(key) for name, key in spec.inputs.items()}
    batch = {n: v.float() / 255 if v.dtype == torch.uint8 else v for n, v in batch.items()}
    options = {}
    if config.type in FLOW:
        options["noise"] = torch.zeros(len(data), config.chunk_size, config.max_action_dim)
    chunk = policy.eval().predict_action_chunk(before({**batch, "task": [*sentences]}), **options)
    found: Tensor = after(chunk)
    return found


def _in_use(spec: Any, data: TensorDict) -> dict[str, str]:
    modes: Mapping[str, str] = spec.config.get("normalization_mapping", {})
    features = {**spec.config["input_features"], **spec.config.get("output_features", {})}
    rows = {}
    for name, feature in features.items():
        if name in spec.inputs or name == "action":
            kept = ", ".join(spec.stats.get(name, {})) or "none, so that it stays as it is"
            rows[f"statistics of {name}"] = f"{modes.get(feature['type'], 'IDENTITY')} of {kept}"
        if name in spec.inputs and feature["type"] == "VISUAL":
            shown = " x ".join(map(str, data.get(spec.inputs[name]).shape[-2:]))
            own = " x ".join(map(str, feature["shape"][-2:]))
            rows[f"image of {name}"] = f"{shown}, of the checkpoint {own}"
    return rows
