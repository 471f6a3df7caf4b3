"""Every kind and head of policy of the package, tiny, with observations that it can read."""

import pytest
import torch
from tensordict import NonTensorStack, TensorDict
from tensordict.utils import unravel_key

from rftf_torchrl import EncoderConfig, FlowNoise, flow_actor, keys, small_vla

ROWS = 4
SMALL = ["gaussian", "arm_gripper", "tokens", "flow", "flow with learned noise"]
VLM = ["gaussian", "tokens", "tokens, autoregressive", "flow"]
KINDS = [*SMALL, *(f"vision-language model, {head}" for head in VLM), "gr_mg", "seer"]
# What a policy reads where the data have it; absent when it acts.
OPTIONAL = {"vla_action", keys.CACHE}


def small(head):
    config = EncoderConfig(image_size=None, state_dim=5, features=8, vocab_size=8)
    actor = small_vla(config, chunk_size=3, action_dim=4, head=head.split()[0])
    if head.endswith("noise"):
        learned = FlowNoise(8, (3, 4), 4)
        network, velocity = actor.module[0], actor.head.velocity
        actor = flow_actor(network, velocity, chunk_size=3, action_dim=4, noise=learned)
    data = TensorDict({keys.STATE: torch.randn(ROWS, 5)}, [ROWS])
    data[keys.TOKENS] = torch.randint(1, 8, (ROWS, 2))
    data[keys.TOKEN_MASK] = torch.ones(ROWS, 2, dtype=torch.bool)
    return actor, data


def on_a_vision_language_model(head, folder):
    from rftf_torchrl import TransformersPolicySpec, save_tiny_vlm

    decoding = {"decoding": "autoregressive"} if head.endswith("autoregressive") else {}
    source = save_tiny_vlm(folder, "smolvlm")
    spec = TransformersPolicySpec.from_pretrained(
        source,
        chunk_size=2,
        action_dim=3,
        bins=16,
        prompt_tokens=32,
        state_dim=4,
        head=head.split(",")[0],
        **decoding,
    )
    image = torch.randint(0, 256, (ROWS, 3, 40, 40)).byte()
    data = TensorDict({keys.IMAGE: image, keys.STATE: torch.randn(ROWS, 4)}, [ROWS])
    data[keys.INSTRUCTION_TEXT] = NonTensorStack(*["open the drawer", "push"] * (ROWS // 2))
    return spec.load(source), spec.observation_transform()(data)


def of_a_paper(kind):
    from _paper_policies import SPECS, build, rollout

    policy = build(SPECS[kind])
    return policy, rollout(SPECS[kind], policy, ROWS).exclude("next")


def first(key):
    return key if isinstance(key, str) else key[0]


def make_policy(kind, folder):
    """A policy and observations [ROWS] with nothing else than it reads."""
    torch.manual_seed(0)
    if kind in SMALL:
        policy, data = small(kind)
    else:
        pytest.importorskip("transformers")
        if kind in ("gr_mg", "seer"):
            policy, data = of_a_paper(kind)
        else:
            policy, data = on_a_vision_language_model(kind.partition(", ")[2], folder)
    inputs = [key for key in map(unravel_key, policy.in_keys) if first(key) not in OPTIONAL]
    return policy.eval(), data.select(*inputs)
