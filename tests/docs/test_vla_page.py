"""The page "bring your own VLA" runs as it is printed, and its commands are the recipes'."""

import re
import sys
from pathlib import Path

import pytest
import torch
from _composed import composed

pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/bring-your-own-vla.md").read_text(encoding="utf-8")
MINE = "# my_vla.py\n"


@pytest.fixture
def my_vla(tmp_path, monkeypatch):
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if MINE in b)
    (tmp_path / "my_vla.py").write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    del sys.modules["my_vla"]


def test_the_code_runs(my_vla):
    names = {"__name__": "page"}
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        if not block.startswith(MINE):
            exec(compile(block, f"block {number}", "exec"), names)
    data = names["data"]
    assert data["vla_action", "chunk"].shape == (2, 4, 7)
    assert all(isinstance(value, torch.Tensor) for value in data.values(True, True))
    assert float(names["losses"]["mean_ratio"]) == 1.0
    assert names["spec"].kind == "my_vla:MyVLASpec"
    assert names["mine"].module[0].module.words.weight.shape == (256, 16)


def test_the_commands_compose(my_vla, monkeypatch):
    from rftf_torchrl import check_config, cli

    found = re.findall(r"^rftf ([\w-]+)\s+(.*)", PAGE.replace("\\\n", ""), re.MULTILINE)
    assert len(found) == 12
    assert {command for command, _ in found} <= set(cli.commands())
    policies = [check_config(composed(*settings.split())).policy for _, settings in found]
    assert {policy.kind for policy in policies} == {
        "small",
        "transformers",
        "my_vla:MyVLASpec",
    }


def test_the_memory_of_a_decision_is_as_stated():
    stated = [int(n.replace(",", "")) for n in re.findall(r"\| ([\d,]{7,}) \|", PAGE)]
    patches = (224 // 14) ** 2 * 3 * 2 * 14**2
    assert stated == [512 * 512 * 3, 224 * 224 * 3, patches]
