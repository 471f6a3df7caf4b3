"""What every policy of the package promises, whatever its kind and head."""

import pytest
import torch
from tensordict import NonTensorStack, TensorDict
from tensordict.utils import unravel_key
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl import (
    EncoderConfig,
    FlowNoise,
    RFTFPPOLoss,
    autocast,
    check_first_ratio,
    flow_actor,
    keys,
    small_vla,
)

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


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """A policy and observations [ROWS] with nothing else than it reads."""
    torch.manual_seed(0)
    kind = request.param
    if kind in SMALL:
        policy, data = small(kind)
    else:
        pytest.importorskip("transformers")
        if kind in ("gr_mg", "seer"):
            policy, data = of_a_paper(kind)
        else:
            folder = tmp_path_factory.mktemp("vlm")
            policy, data = on_a_vision_language_model(kind.partition(", ")[2], folder)
    inputs = [key for key in map(unravel_key, policy.in_keys) if first(key) not in OPTIONAL]
    return policy.eval(), data.select(*inputs)


def first(key):
    return key if isinstance(key, str) else key[0]


def acted(policy, data, mode, seed):
    torch.manual_seed(seed)
    with torch.no_grad(), set_exploration_type(mode):
        return policy(data.clone())


def test_deterministic_knows_no_seed(made):
    one, two = (acted(*made, ExplorationType.DETERMINISTIC, seed) for seed in (0, 1))
    assert torch.equal(one[keys.CHUNK], two[keys.CHUNK])
    assert torch.equal(one[keys.LOG_PROB], two[keys.LOG_PROB])


def test_a_sample_follows_from_its_seed(made):
    one, again, other = (acted(*made, ExplorationType.RANDOM, seed) for seed in (0, 0, 1))
    assert torch.equal(one[keys.CHUNK], again[keys.CHUNK])
    assert torch.equal(one[keys.LOG_PROB], again[keys.LOG_PROB])
    assert not torch.equal(one[keys.CHUNK], other[keys.CHUNK])
    quiet = acted(*made, ExplorationType.DETERMINISTIC, 0)
    assert not torch.equal(one[keys.CHUNK], quiet[keys.CHUNK])


@pytest.mark.parametrize("mode", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
def test_the_loss_finds_the_probability_of_what_was_done(made, mode):
    policy, _ = made
    data = acted(*made, mode, 0)
    again = policy.get_dist(data.clone()).log_prob(data[keys.CHUNK])
    torch.testing.assert_close(again, data[keys.LOG_PROB], atol=1e-5, rtol=1e-5)
    loss = RFTFPPOLoss(policy, reference_actor=policy, critic_coeff=None)
    ratio = loss.log_ratio(data)
    torch.testing.assert_close(ratio, torch.zeros(ROWS), atol=1e-4, rtol=0)
    data["advantage"] = torch.randn(ROWS, 1)
    out = loss(loss.add_reference(data))
    torch.testing.assert_close(out["max_ratio"], torch.tensor(1.0), atol=1e-4, rtol=0)
    assert out["kl_reference"].item() < 1e-6


@pytest.mark.parametrize("rollout", ["fp32", "bf16"])
@pytest.mark.parametrize("update", ["fp32", "bf16"])
def test_decisions_of_one_row_each_are_within_the_first_ratios_bound(made, rollout, update):
    policy, data = made
    with autocast("cpu", rollout):
        rows = [acted(policy, row, ExplorationType.RANDOM, 0) for row in data.split(1)]
    loss = RFTFPPOLoss(policy, kl_coeff=0)
    bound = 1e-4 if rollout == update == "fp32" else 0.25
    with autocast("cpu", update):
        assert check_first_ratio(loss, torch.cat(rows), bound=bound) <= bound


def test_a_row_is_a_row_of_any_batch(made):
    policy, data = made
    together = acted(policy, data, ExplorationType.DETERMINISTIC, 0)
    for row in range(ROWS):
        alone = acted(policy, data[row : row + 1], ExplorationType.DETERMINISTIC, 0)
        single = acted(policy, data[row], ExplorationType.DETERMINISTIC, 0)
        for key in (keys.CHUNK, keys.LOG_PROB):
            torch.testing.assert_close(alone[key][0], together[key][row], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(single[key], alone[key][0], atol=1e-4, rtol=1e-4)


def test_the_keys_are_those_that_it_names(made):
    policy, data = made
    out = acted(policy, data, ExplorationType.RANDOM, 0)
    promised = set(map(unravel_key, policy.out_keys))
    written = set(map(unravel_key, out.keys(True, True))) - set(data.keys(True, True))
    assert written == promised
    for key in policy.out_keys:
        assert out[key].shape[:1] == (ROWS,)


def test_every_input_is_needed(made):
    policy, data = made
    for key in set(map(first, data.keys(True, True))):
        with pytest.raises((KeyError, AttributeError, RuntimeError, TypeError)):
            acted(policy, data.exclude(key), ExplorationType.DETERMINISTIC, 0)
