"""Numbers that mean nothing are refused where they are given, by name."""

import math
import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule

from rftf_torchrl import (
    EncoderConfig,
    EpisodeCollector,
    MetaWorldEnv,
    RFTFPPOLoss,
    TemporalRankingLoss,
    ValueReward,
    make_gae,
    small_vla,
    temporal_value_model,
)

STATE = EncoderConfig(image_size=None, state_dim=3)


def values():
    return TensorDictModule(lambda x: x, in_keys=["x"], out_keys=["temporal_value"])


def policy():
    return small_vla(STATE, chunk_size=1, action_dim=4)


def rewarded(success):
    column = torch.zeros(2, 1)
    following = {"x": column, "success": success, "terminated": column.bool()}
    return ValueReward(values())(TensorDict({"x": column, "next": following}, [2]))


WRONG = {
    "gamma=5: must be at most 1": lambda: make_gae(gamma=5, lmbda=0.9),
    "lmbda=-1: must be at least 0": lambda: make_gae(gamma=0.9, lmbda=-1),
    "gamma=nan: must be at most 1": lambda: make_gae(gamma=math.nan, lmbda=0.9),
    "dense_weight=nan: must be a finite number": lambda: ValueReward(
        values(), dense_weight=math.nan
    ),
    "outcome_weight=inf: must be a finite number": lambda: ValueReward(
        values(), outcome_weight=math.inf
    ),
    "chunk_size=0: must be at least 1": lambda: small_vla(STATE, chunk_size=0, action_dim=4),
    "action_dim=0: must be at least 1": lambda: small_vla(STATE, chunk_size=1, action_dim=0),
    "features=0: must be at least 1": lambda: EncoderConfig(state_dim=3, features=0),
    "state_dim=0: must be at least 1": lambda: EncoderConfig(state_dim=0),
    "action_repeat must be a whole number, got 1.5": lambda: MetaWorldEnv(
        "reach", image_size=None, action_repeat=1.5
    ),
    "('next', 'success') must be true or false, or 0 or 1, got 3.7: success is no reward.": (
        lambda: rewarded(torch.full((2, 1), 3.7))
    ),
    "failures is a weight and must not be negative, got nan.": lambda: TemporalRankingLoss(
        temporal_value_model(STATE), failures=math.nan
    ),
    "clip_epsilon=-1.0: must be above 0": lambda: RFTFPPOLoss(
        policy(), critic_coeff=None, clip_epsilon=-1.0
    ),
    "engine must be 'process' or 'ray', got 'threads'": lambda: EpisodeCollector(
        lambda _: None, policy(), engine="threads"
    ),
    "engine='ray' needs 1 or more workers, got 0": lambda: EpisodeCollector(
        lambda _: None, policy(), engine="ray", workers=0
    ),
    "gpus must be 0 or more, got -1": lambda: EpisodeCollector(
        lambda _: None, policy(), engine="ray", gpus=-1
    ),
    "gpus=0.5 is for engine='ray'; processes share all GPUs": lambda: EpisodeCollector(
        lambda _: None, policy(), gpus=0.5
    ),
    "timeout must be a positive number of seconds, got nan": lambda: EpisodeCollector(
        lambda _: None, policy(), workers=0, timeout=math.nan
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_means_nothing_is_refused(message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WRONG[message]()


def test_success_may_be_a_number_that_is_a_truth():
    rewards = rewarded(torch.tensor([[0.0], [1.0]]))["next", "outcome_reward"]
    assert rewards.flatten().tolist() == [0.0, 1.0]
