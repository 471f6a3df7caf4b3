"""What every policy of the package promises, whatever its kind and head."""

import pytest
import torch
from policy_kinds import KINDS, ROWS, first, make_policy
from tensordict.utils import unravel_key
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl import RFTFPPOLoss, autocast, check_first_ratio, keys
from rftf_torchrl.envs.row_noise import decide
from rftf_torchrl.policies.call_on_tensors import leaves


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    return make_policy(request.param, tmp_path_factory.mktemp("policy"))


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


def test_a_row_of_a_batch_has_noise_of_its_own(made):
    policy, data = made
    seeds = [7, 8, 9, 7]
    data = leaves(torch.cat([data[:3], data[:1]]))
    together = decide(policy, data, seeds, deterministic=False)
    for row in range(ROWS):
        one = {key: each[row : row + 1] for key, each in data.items()}
        alone = decide(policy, one, seeds[row : row + 1], deterministic=False)
        for key in (keys.CHUNK, keys.LOG_PROB):
            torch.testing.assert_close(alone[key][0], together[key][row], atol=1e-4, rtol=1e-4)
    other = decide(policy, data, [1, 2, 3, 4], deterministic=False)
    assert not any(map(torch.equal, together[keys.CHUNK], other[keys.CHUNK]))


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
