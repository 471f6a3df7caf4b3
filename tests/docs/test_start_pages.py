"""The first pages: their Python runs, and their commands are those of the recipes."""

import re
import shlex
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from rftf_torchrl import check_config, register
from rftf_torchrl.cli import commands

ROOT = Path(__file__).parents[2]
START = ROOT / "docs" / "start"


def text_of(page):
    return (START / f"{page}.md").read_text(encoding="utf-8")


def commands_of(text):
    """(command, settings) of each line of a bash block."""
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("rftf ")]
    return [(command, settings) for _, command, *settings in found]


def test_the_dense_reward_in_a_torchrl_loop():
    names = {"__name__": "torchrl-loop"}
    blocks = re.findall(r"```python\n(.*?)```", text_of("torchrl-loop"), re.DOTALL)
    for number, block in enumerate(blocks):
        exec(compile(block, f"torchrl-loop.md, block {number}", "exec"), names)
    assert names["losses"]["pairwise_accuracy"] > 0.95
    reward = names["data"]["next"]
    torch.testing.assert_close(reward["reward"], reward["dense_reward"] + reward["outcome_reward"])
    assert reward["dense_reward"].std() > 0


def test_the_commands_for_a_checkpoint_compose():
    register()
    found = commands_of(text_of("vla-checkpoint"))
    assert len(found) == 12
    for command, settings in found:
        assert command in commands()
        with initialize_config_dir(str(ROOT / "recipes/conf"), version_base="1.3"):
            config = check_config(compose("config", overrides=settings))
        assert config.policy.kind in ("transformers", "small")


def test_the_problems_of_a_checkpoint_have_settings_that_exist():
    register()
    table = text_of("vla-checkpoint").split("| problem | setting |")[1].split("\n\n")[0]
    settings = re.findall(r"`([\w.]+=[\w.]+)`", table)
    assert len(settings) == 6
    with initialize_config_dir(str(ROOT / "recipes/conf"), version_base="1.3"):
        check_config(compose("config", overrides=["policy=smolvlm", *settings]))


def test_the_commands_for_videos_are_those_of_the_page_whose_commands_run():
    page = (ROOT / "docs" / "how-to" / "videos.md").read_text(encoding="utf-8")
    found = commands_of(text_of("videos-or-lerobot"))
    assert len(found) == 5
    assert [command for command in found if command not in commands_of(page)] == []


def test_the_commands_that_the_answers_name_exist():
    named = re.findall(r"`rftf ([\w-]+)", text_of("faq"))
    assert named
    assert set(named) <= set(commands())
