"""An update of a shipped policy on kept features of its frozen towers, against one on images.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_tower_reuse.py smolvlm --share 4
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_tower_reuse.py seer --share 6 --batch 1
    python tests/benchmarks/bench_tower_reuse.py gr_mg --batch 32 --device cuda

Random weights in the sizes of SmolVLM2 500M (``policy=smolvlm``), GR-MG and Seer; ``--share 4``
builds a fourth of the layers of towers and trunk. Both kinds of update take turns; ratios are those
of medians. On a CPU the seconds are the process's own, so that other work does not count.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median

import torch
from tensordict import TensorDict

from rftf_torchrl import (
    GRMGSpec,
    RFTFPPOLoss,
    SeerSpec,
    TransformersPolicySpec,
    cache_bytes,
    cache_features,
    keys,
)

WORDS, ACTION, WINDOW = 64, 7, 10


def smolvlm(share, batch):
    text = {
        "model_type": "llama", "hidden_size": 960, "intermediate_size": 2560,
        "num_hidden_layers": 32 // share, "num_attention_heads": 15, "num_key_value_heads": 5,
        "head_dim": 64, "vocab_size": 49280, "pad_token_id": 2, "bos_token_id": 1,
        "eos_token_id": 2,
    }  # fmt: skip
    vision = {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12 // share,
        "num_attention_heads": 12, "image_size": 512, "patch_size": 16,
    }  # fmt: skip
    config = {
        "model_type": "smolvlm", "text_config": text, "vision_config": vision,
        "image_token_id": 49190, "scale_factor": 4, "tie_word_embeddings": False,
    }  # fmt: skip
    spec = TransformersPolicySpec(
        config, 4, ACTION, action_tokens=tuple(range(48000, 48256)), trained="language"
    )
    ids = torch.randint(10, 40000, (batch, 64 + WORDS))
    ids[:, :64] = config["image_token_id"]
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids, dtype=torch.bool),
        "position_ids": torch.arange(ids.shape[1]).expand_as(ids).clone(),
        "pixel_values": pictures(batch, 1, 3, 512, 512),
    }
    return spec.build(), TensorDict({keys.VLA_INPUTS: inputs}, [batch])


def windows(spec, share, batch):
    config = spec.config
    image = replace(config.image, depth=config.image.depth // share)
    text = replace(config.text, layers=config.text.layers // share)
    sizes = {"image": image, "text": text, "layers": config.layers // share}
    spec = replace(spec, config=replace(config, **sizes))
    inputs = {
        "image_history": pictures(batch, WINDOW, 3, 200, 200),
        "wrist_image_history": pictures(batch, WINDOW, 3, 84, 84),
        "goal_image": pictures(batch, 3, 200, 200),
        "state_history": torch.randn(batch, WINDOW, 15),
        "valid": torch.ones(batch, WINDOW, dtype=torch.bool),
        "clip_tokens": torch.randint(1, 40000, (batch, 12)),
    }
    inputs["clip_tokens"][:, -1] = text.end_token
    return spec.build(), TensorDict({keys.VLA_INPUTS: inputs}, [batch])


def pictures(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


POLICIES = {
    "smolvlm": smolvlm,
    "gr_mg": lambda share, batch: windows(GRMGSpec(), share, batch),
    "seer": lambda share, batch: windows(SeerSpec(), share, batch),
}


def seconds(run, device):
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def main(args):
    torch.manual_seed(0)
    device = torch.device(args.device)
    policy, data = POLICIES[args.policy](args.share, args.batch)
    policy, data = policy.to(device), data.to(device)
    with torch.no_grad():
        data = policy(data)
    data["advantage"] = torch.randn(args.batch, 1, device=device)
    loss = RFTFPPOLoss(policy, reference_actor=policy, functional=False)
    trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-7)
    loss.add_reference(data)

    def update(batch):
        optimizer.zero_grad()
        losses = loss(batch)
        sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
        optimizer.step()

    def reference(batch):
        loss.add_reference(batch.copy())

    kept = data.copy()
    once = median(
        seconds(lambda: cache_features(policy, kept), device) for _ in range(args.repeats)
    )
    times = {}
    for _ in range(args.repeats + 1):
        for form, batch in (("pictures", data), ("features", kept)):
            for step in (update, reference):
                took = seconds(lambda step=step, batch=batch: step(batch.copy()), device)
                times.setdefault((step, form), []).append(took)
    full, short, before, after = (
        median(times[step, form][1:])
        for step in (update, reference)
        for form in ("pictures", "features")
    )
    whole = (once + after + args.epochs * short) / (before + args.epochs * full)
    print(f"{args.policy}, {args.batch} decisions, torch {torch.__version__}, {vars(args)}")
    print(f"update on images        {full:8.2f} s")
    print(f"update on kept features   {short:8.2f} s, {short / full:.2f} of it")
    print(f"features, once            {once:8.2f} s")
    print(f"{args.epochs} epochs, reference and features included: {whole:.2f} of the time")
    print(f"kept: {cache_bytes(policy, data) / args.batch / 2**20:.2f} MiB a decision")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("policy", choices=POLICIES)
    parser.add_argument("--share", type=int, default=1)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    main(parser.parse_args())
