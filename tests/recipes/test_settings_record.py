"""Settings that made something are compared with those of a later run."""

import re
from pathlib import Path

import pytest

from rftf_torchrl import ConfigError, RunConfig
from rftf_torchrl.configs.record import RUN, made_by, name_of, refuse_changes


def test_only_the_named_parts_are_kept():
    config = RunConfig(output="outputs/run", seed=3)
    kept = made_by(config, ["seed", "balance", "env.chunk_size"])
    assert kept == {"seed": 3, "balance.kind": "outcome", "env.chunk_size": 2}


def test_given_files_of_a_folder_that_was_moved_have_the_same_names():
    found = []
    for output in ("outputs/run", "elsewhere"):
        config = RunConfig(output=output)
        config.policy.path = f"{output}/bc/policy.safetensors"
        config.value.path = "/values/value.safetensors"
        found.append(made_by(config, RUN))
    refuse_changes("run", *found)
    assert found[0]["policy.path"] == "bc/policy.safetensors"
    assert found[0]["value.path"] == "/values/value.safetensors"
    assert found[0]["demos.path"] is None


def test_a_file_outside_is_not_taken_for_one_of_the_same_name_inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = RunConfig(output="run")
    assert name_of(config, "bc/policy.safetensors") == "bc/policy.safetensors"
    for folder in ("bc", "run/bc"):
        Path(folder).mkdir(parents=True)
        Path(folder, "policy.safetensors").touch()
    inside, outside = (name_of(config, f"{x}bc/policy.safetensors") for x in ("run/", ""))
    assert inside == "bc/policy.safetensors"
    assert outside == str(Path("bc/policy.safetensors").resolve())


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


@pytest.mark.parametrize(
    ("earlier", "now", "line"),
    [
        ({"form": "x"}, {}, "reward.options.form=x, and now None"),
        ({}, {"form": "x"}, "reward.options.form=None, and now x"),
    ],
)
def test_an_option_that_only_one_side_gives_is_a_change(earlier, now, line):
    """Where the other has none, it has the default; a file without options says nothing."""
    settings = [made_by(RunConfig(), ("reward",)) for _ in range(2)]
    for found, options in zip(settings, (earlier, now), strict=True):
        found.pop("reward.options")
        found |= {f"reward.options.{k}": v for k, v in options.items()} or {"reward.options": {}}
    with pytest.raises(ConfigError, match=re.escape(line)):
        refuse_changes("run", *settings)
    older = {k: v for k, v in settings[0].items() if ".options" not in k}
    refuse_changes("run", older, settings[1])
    refuse_changes("run", settings[0], settings[1], allowed=("reward.options.form",))
