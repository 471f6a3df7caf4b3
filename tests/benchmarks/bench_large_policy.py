"""Rollout and update of a vision-language-action policy of transformers parts, random weights.

    python tests/benchmarks/bench_large_policy.py                     # tiny, to see that it runs
    python tests/benchmarks/bench_large_policy.py --size 2b --device cuda --checkpoint

A frozen SigLIP tower, a Llama decoder with adapters, a Gaussian or flow head, a critic on the
decoder's features. Rates are medians over ``--repeats`` after one run to warm up; the update has
its towers' features cached and its reference computed, both timed on their own. The matrix rate is
measured in the same process; the update's share of it counts the operations that were executed,
recomputation included, by ``torch.utils.flop_counter``.
"""

from __future__ import annotations

import argparse
import platform
import time
from statistics import median

import torch
from peft import LoraConfig
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaModel, SiglipVisionConfig, SiglipVisionModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from rftf_torchrl import (
    ChunkVelocity,
    FrozenFeatures,
    RFTFPPOLoss,
    accumulate_gradients,
    add_lora,
    autocast,
    cache_features,
    checkpoint_activations,
    compile_module,
    flow_actor,
    footprint,
    gaussian_actor,
    keys,
    resolve_device,
)

SIZES = {
    "tiny": {
        "image": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
                  "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                 "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64},
        "matmul": 512,
    },
    "2b": {  # the size of PaliGemma: a tower of 0.4 and a decoder of 2.0 billion
        "image": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
                  "num_attention_heads": 16, "image_size": 224, "patch_size": 14},
        "text": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 30,
                 "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 32000},
        "matmul": 8192,
    },
}  # fmt: skip
CHUNK, ACTION, WORDS = 10, 7, 32


class Tower(nn.Module):
    def __init__(self, settings, dtype):
        super().__init__()
        self.model = SiglipVisionModel(SiglipVisionConfig(**settings)).to(dtype)

    def forward(self, image):
        pixels = image.to(self.model.dtype) / 127.5 - 1
        return self.model(pixels).last_hidden_state


class Decoder(nn.Module):
    """Image tokens, then words; the last state is the feature."""

    def __init__(self, settings, image_size, dtype):
        super().__init__()
        self.model = LlamaModel(LlamaConfig(**settings)).to(dtype)
        self.project = nn.Linear(image_size, settings["hidden_size"])

    def forward(self, patches, tokens):
        words = self.model.embed_tokens(tokens)
        inputs = torch.cat([self.project(patches.float()).to(words.dtype), words], -2)
        hidden = self.model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        return hidden[:, -1].float()


def build(args, device):
    size = SIZES[args.size]
    dtype = torch.float32 if args.size == "tiny" else torch.bfloat16
    with device:
        tower, decoder = (
            Tower(size["image"], dtype),
            Decoder(size["text"], size["image"]["hidden_size"], dtype),
        )
        width = size["text"]["hidden_size"]
        network = TensorDictSequential(
            FrozenFeatures(TensorDictModule(tower, [keys.IMAGE], ["patches"])),
            TensorDictModule(decoder, ["patches", keys.TOKENS], ["features"]),
        )
        if args.head == "flow":
            velocity = ChunkVelocity(width, (CHUNK, ACTION), width=min(1024, 8 * width))
            policy = flow_actor(network, velocity, chunk_size=CHUNK, action_dim=ACTION)
        else:
            head = nn.Sequential(
                nn.Linear(width, CHUNK * ACTION), nn.Unflatten(-1, (CHUNK, ACTION))
            )
            policy = gaussian_actor(
                TensorDictSequential(network, TensorDictModule(head, ["features"], [keys.LOC])),
                chunk_size=CHUNK,
                action_dim=ACTION,
            )
        critic = TensorDictModule(
            nn.Sequential(nn.Linear(width, 256), nn.Tanh(), nn.Linear(256, 1)),
            ["features"],
            [keys.STATE_VALUE],
        )
        add_lora(policy, LoraConfig(r=args.rank, target_modules="all-linear"), part=LlamaModel)
    if args.checkpoint:
        checkpoint_activations(decoder, LlamaDecoderLayer)
    return policy.eval(), critic, tower, decoder


def observations(args, device):
    size = SIZES[args.size]
    side, words = size["image"]["image_size"], size["text"]["vocab_size"]
    data = TensorDict(batch_size=[args.batch], device=device)
    data[keys.IMAGE] = torch.randint(256, (args.batch, 3, side, side), device=device).byte()
    data[keys.TOKENS] = torch.randint(words, (args.batch, WORDS), device=device)
    return data


def seconds(run, device, repeats):
    """Median wall time of a call, after one to warm up."""
    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return median(found[1:])


def matrix_rate(size, device, repeats):
    """Operations per second of a bfloat16 product of two square matrices."""
    one = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    two = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / seconds(lambda: one @ two, device, repeats)


def main(args):
    device = resolve_device(args.device)
    on_cuda = device.type == "cuda"
    card = torch.cuda.get_device_name(device) if on_cuda else platform.processor() or "CPU"
    print(f"{card}; torch {torch.__version__}; {vars(args)}")
    torch.manual_seed(0)
    rate = matrix_rate(SIZES[args.size]["matmul"], device, args.repeats)
    policy, critic, tower, decoder = build(args, device)
    loss = RFTFPPOLoss(
        policy,
        critic,
        reference_actor="adapters_off",
        functional=False,
        normalize_advantage=False,
        loss_critic_type="l2",
    )
    trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)

    def precision():
        return autocast(device, "bf16")

    def roll_out():
        with torch.no_grad(), precision():
            return policy(observations(args, device))

    data = roll_out()
    data["advantage"] = torch.randn(args.batch, 1, device=device)
    data["value_target"] = torch.randn(args.batch, 1, device=device)
    cache_features(policy, data, from_rollout=True)

    def reference():
        with precision():
            loss.add_reference(data, minibatch=args.micro_batch)

    def update():
        optimizer.zero_grad()
        accumulate_gradients(loss, data, args.micro_batch, context=precision)
        optimizer.step()

    reference()
    with FlopCounterMode(display=False) as counter:
        update()
    operations = counter.get_total_flops()
    if args.compile:
        compile_module(decoder)
        if args.head == "flow":
            compile_module(policy.head.velocity)
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    times = {"rollout": seconds(roll_out, device, args.repeats)}
    rollout_peak = torch.cuda.max_memory_allocated(device) / 2**30 if on_cuda else None
    if args.compile:
        data.update(roll_out())
        cache_features(policy, data, from_rollout=True)
    times["reference"] = seconds(reference, device, args.repeats)
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    times["update"] = seconds(update, device, args.repeats)
    print(f"rollout    {args.batch / times['rollout']:10.1f} decisions/s")
    print(f"reference  {args.batch / times['reference']:10.1f} samples/s")
    print(f"update     {args.batch / times['update']:10.1f} samples/s per epoch")
    print(f"matrix rate in bf16       {rate / 1e12:8.2f} TFLOP/s")
    print(
        f"update                    {operations / times['update'] / 1e12:8.2f} TFLOP/s, "
        f"{operations / times['update'] / rate:.0%} of it"
    )
    if rollout_peak is not None:
        print(f"peak in the rollout {rollout_peak:.1f} GiB")
    parts = {"tower": tower, "decoder": decoder, "head and the rest": policy, "critic": critic}
    print(footprint(parts, optimizer=optimizer, seconds=times, device=device))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--head", choices=("gaussian", "flow"), default="flow")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--compile", action="store_true")
    main(parser.parse_args())
