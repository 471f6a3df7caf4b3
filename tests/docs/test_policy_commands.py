"""The commands on the pages about policies compose."""

import re
from pathlib import Path

import pytest
from _composed import composed

from rftf_torchrl import check_config
from rftf_torchrl.cli import commands

ROOT = Path(__file__).parents[2]
PAGES = {"gr-mg-and-seer": ("calvin", 5), "lerobot": ("metaworld", 7)}


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_compose(page):
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    for name, value in re.findall(r'^(\w+)="(.*)"$', text, re.MULTILINE):
        text = text.replace(f"${name}", value)
    simulator, count = PAGES[page]
    found = re.findall(r"^rftf ([\w-]+)\s+(.*)$", text, re.MULTILINE)
    assert len(found) == count
    assert {command for command, _ in found} <= set(commands())
    for command, words in found:
        config = check_config(composed(*words.split()))
        assert command == "export" or config.env.kind == simulator


def test_a_nested_option_of_the_command_line():
    config = check_config(composed("policy=gr_mg", "policy.options.config={arm_dim: 3}"))
    assert config.policy.options == {"config": {"arm_dim": 3}}
