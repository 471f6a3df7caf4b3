"""Steps of the ranking loss on a frozen image tower, with and without cached features.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_feature_cache.py

The tower has DINOv2-S's sizes and random weights: the time does not depend on them.
"""

import time

import torch
from tensordict import TensorDict

from rftf_torchrl import (
    PretrainedEncoderConfig,
    TemporalRankingLoss,
    cache_image_features,
    on_cached_features,
    temporal_value_model,
)

TOWER = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_attention_heads": 6,
    "image_size": 224,
    "patch_size": 14,
}


def seconds(loss_module, clips, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        loss_module(clips)["loss_ranking"].backward()
    return (time.perf_counter() - start) / repeats


def main():
    torch.manual_seed(0)
    model = temporal_value_model(PretrainedEncoderConfig(TOWER, grid=4))
    image = torch.randint(0, 256, (4, 8, 3, 64, 64), dtype=torch.uint8)
    tokens = torch.randint(1, 1024, (4, 1, 6)).expand(4, 8, 6)
    clips = TensorDict(
        {"observation": {"image": image}, "instruction": {"tokens": tokens, "mask": tokens > 0}},
        [4, 8],
    )
    start = time.perf_counter()
    cache_image_features(model, clips)
    cached = time.perf_counter() - start
    features = clips["features", "image"]
    without = seconds(TemporalRankingLoss(model), clips, 2)
    with_cache = seconds(TemporalRankingLoss(on_cached_features(model)), clips, 20)
    size = features[0, 0].numel() * features.element_size()
    print(f"{clips.numel()} frames, {size / 1024:.0f} KiB of features each")
    print(f"features once: {cached:.2f} s")
    print(f"a step on images: {without:.2f} s, on features: {with_cache:.3f} s")


if __name__ == "__main__":
    main()
