"""The quick start's budget, which needs no simulator to be divided."""

import pytest
from tiny import TINY

pytestmark = pytest.mark.recipe


def test_the_most_steps_are_said_beforehand(configure):
    from rftf_torchrl.recipes.finetune import budget

    sizes = ["env.horizon=4", "env.chunk_size=2", "ppo.episodes_per_task=3", "ppo.env_steps=1000"]
    config = configure(*TINY, "output=x", *sizes)
    tasks, repeat = len(config.tuned_tasks), config.env.options["action_repeat"]
    assert budget(config) == (
        ", until 1,000 simulator steps are played, at most "
        f"{999 + 4 * 2 * repeat * 3 * tasks:,}, as an iteration is played to its end"
    )
    assert budget(configure(*TINY, "output=x")) == ""


def test_rollouts_of_the_value_model_come_out_of_the_budget(configure):
    from rftf_torchrl.recipes.quickstart import after_rollouts

    config = configure(*TINY, "output=x", "ppo.env_steps=1000")
    assert after_rollouts(config, 300).ppo.env_steps == 700
    assert after_rollouts(configure(*TINY, "output=x"), 300).ppo.env_steps is None
    with pytest.raises(ValueError, match="the value model's rollouts took 1,000 steps"):
        after_rollouts(config, 1000)
