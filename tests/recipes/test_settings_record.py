"""Settings that made something are compared with those of a later run."""

import re

import pytest

from rftf_torchrl import ConfigError, RunConfig
from rftf_torchrl.configs.record import made_by, refuse_changes


def test_only_the_named_parts_are_kept():
    config = RunConfig(output="outputs/run", seed=3)
    kept = made_by(config, ["seed", "balance", "env.chunk_size"])
    assert kept == {"seed": 3, "balance.kind": "outcome", "env.chunk_size": 2}


def test_what_may_change_and_what_one_side_does_not_know_is_passed_over():
    earlier = {"ppo.iterations": 3, "collector.workers": 2, "ppo.gamma": 0.9, "old": 1}
    now = {"ppo.iterations": 9, "collector.workers": 0, "ppo.gamma": 0.9, "new": 2}
    assert refuse_changes("outputs/run/rftf", earlier, now) is None


def test_everything_else_is_refused_by_name_with_both_values():
    message = (
        "outputs/run/rftf was made with other settings:\n"
        "  - seed=0, and now 1\n"
        "  - env.tasks=['a'], and now ['a', 'b']\n"
        "To go on, use another output folder, or give the earlier settings."
    )
    earlier, now = {"seed": 0, "env.tasks": ["a"]}, {"seed": 1, "env.tasks": ["a", "b"]}
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        refuse_changes("outputs/run/rftf", earlier, now)
