"""The README's example runs as it is printed, and its commands name what exists."""

import re
from importlib.metadata import metadata
from pathlib import Path

import pytest
import torch
from torchrl.collectors import Collector
from torchrl.envs import StepCounter
from torchrl.envs.custom import ToyVLAEnv

from rftf_torchrl import (
    EncoderConfig,
    HashTokenizer,
    InstructionTokens,
    TemporalValueModel,
    ValueReward,
    cli,
    temporal_value_model,
)
from rftf_torchrl.envs.simulator import SIMULATORS
from rftf_torchrl.objectives.advantages import CRITICS
from rftf_torchrl.policies.spec import POLICIES
from rftf_torchrl.rewards.forms import FORMS
from rftf_torchrl.values.kinds import VALUE_KINDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example():
    """The source of the ``ValueReward`` example."""
    match = re.search(r"<!-- example:value-reward -->\n```python\n(.*?)```", README, re.DOTALL)
    assert match, "the README has lost the marker <!-- example:value-reward -->"
    return match[1]


def test_the_three_lines_run(tmp_path, monkeypatch):
    lines = re.search(r"<!-- example:three-lines -->\n```python\n(.*?)```", README, re.DOTALL)[1]
    assert len(lines.splitlines()) == 3
    monkeypatch.chdir(tmp_path)
    env = ToyVLAEnv(2, 4, success_steps=1).append_transform(StepCounter(4))
    env = env.append_transform(InstructionTokens(HashTokenizer(max_length=8)))
    sizes = EncoderConfig(image_size=None, state_dim=4, max_tokens=8)
    temporal_value_model(sizes).save("value.safetensors")
    names = {"TemporalValueModel": TemporalValueModel, "ValueReward": ValueReward}
    names |= {"Collector": Collector, "env": env, "policy": None}
    exec(compile(lines, "README.md", "exec"), names)
    (data,) = names["collector"]
    assert data["next", "dense_reward"].std() > 0


def test_the_example_is_short(example):
    assert len(example.splitlines()) <= 30


@pytest.mark.slow
def test_the_example_learns(example, capsys):
    torch.manual_seed(0)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    rewards = names["data"]["next"].select("reward", "dense_reward", "outcome_reward")
    assert torch.isfinite(names["loss"])
    assert all(torch.isfinite(entry).all() for entry in rewards.values())
    assert rewards["dense_reward"].std() > 0
    torch.testing.assert_close(
        rewards["reward"], rewards["dense_reward"] + rewards["outcome_reward"]
    )
    success = [int(share) for share in re.findall(r"(\d+)% succeeded", capsys.readouterr().out)]
    assert len(success) == 15
    assert success[-1] >= success[0] + 20


def test_install_commands_use_the_constraints_and_extras_that_exist():
    extras = metadata("rftf-torchrl").get_all("Provides-Extra")
    commands = re.findall(r"pip install -c (\S+) -e '\.\[([\w,]+)\]'", README)
    assert len(commands) >= 2
    for constraints, names in commands:
        assert (ROOT / constraints).is_file()
        assert set(names.split(",")) <= set(extras)


def test_commands_name_recipes_that_exist():
    named = set(re.findall(r"(?:^|`|&& )rftf ([a-z][\w-]+)", README, re.MULTILINE))
    assert {"quickstart", "finetune", "calvin"} <= named
    assert named <= set(cli.commands())
    recipes = re.findall(r"python (recipes/\w+\.py)", README)
    assert recipes
    assert [name for name in recipes if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    ("setting", "registry"),
    [
        ("env.kind", SIMULATORS),
        ("policy.kind", POLICIES),
        ("value.kind", VALUE_KINDS),
        ("critic", CRITICS),
        ("reward.form", FORMS),
    ],
)
def test_the_table_of_doors_names_every_kind(setting, registry):
    row = re.search(rf"\| `{re.escape(setting)}` \| (.+?) \| (.+?) \| `(\S+)` \|", README)
    assert re.findall(r"`(\w+)`", row[1]) == list(registry.names)
    assert row[2].startswith("`module:")
    assert row[3] == registry.group


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
