"""The quick start's budget, which needs no simulator to be divided."""

import pytest
from tiny import TINY

pytestmark = pytest.mark.recipe


def test_rollouts_of_the_value_model_come_out_of_the_budget(configure):
    from rftf_torchrl.recipes.quickstart import after_rollouts

    config = configure(*TINY, "output=x", "ppo.env_steps=1000")
    assert after_rollouts(config, 300).ppo.env_steps == 700
    assert after_rollouts(configure(*TINY, "output=x"), 300).ppo.env_steps is None
    with pytest.raises(ValueError, match="the value model's rollouts took 1,000 steps"):
        after_rollouts(config, 1000)
