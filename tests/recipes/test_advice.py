"""What fine-tuning says where a policy hardly ever succeeds."""

import pytest

from rftf_torchrl.recipes.finetune import advise

ADVICE = (
    "0.0% of the first episodes succeed, so success alone teaches little: a reward for new maxima "
    "of a value model that learns on has helped most there, reward=peak_refresh "
    "(docs/results/no_actions.md)"
)


@pytest.mark.parametrize(
    ("success", "words", "said"),
    [
        (0.0, [], [ADVICE]),
        (0.05, [], []),
        (0.0, ["reward=peak_refresh"], []),
    ],
)
def test_rare_success_names_the_reward_that_helped(configure, caplog, success, words, said):
    advise(configure(*words), success)
    assert caplog.messages == said
