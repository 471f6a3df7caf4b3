"""The how-to pages: their snippets run, and their words and settings are those of the recipes."""

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from rftf_torchrl import LiberoOptions
from rftf_torchrl.configs import schema
from rftf_torchrl.configs.typos import setting_names
from rftf_torchrl.data.readers.door import READERS
from rftf_torchrl.envs.simulator import SIMULATORS
from rftf_torchrl.policies.spec import POLICIES
from rftf_torchrl.rewards.forms import FORMS
from rftf_torchrl.values.kinds import VALUE_KINDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def run_snippets(page, checkpoints=()):
    """Execute a page's Python blocks one after another and return the names they left.

    ``checkpoints`` are pairs of a hub id in the page and a folder to read instead.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    for hub_id, folder in checkpoints:
        assert hub_id in text
        text = text.replace(hub_id, str(folder))
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"__name__": page}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names


def test_one_piece():
    names = run_snippets("how-to/one-piece.md")
    rewards = names["data"]["next"]
    torch.testing.assert_close(rewards["dense_reward"], torch.tensor([[0.495], [-0.5]]))
    torch.testing.assert_close(rewards["reward"], torch.tensor([[0.495], [0.5]]))
    calibrated = names["model"](names["clips"])["temporal_value"]
    torch.testing.assert_close(calibrated[:, 0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(calibrated[:, -1].mean(), torch.tensor(1.0), atol=1e-5, rtol=0)
    balance = [int(b["trajectory_success"].sum()) for b in names["buffer"]]
    assert balance == [2, 2]
    assert float(names["losses"]["mean_ratio"]) == 1.0


@pytest.mark.libero
@pytest.mark.slow
def test_libero(capsys):
    names = run_snippets("how-to/libero.md")
    assert names["data"]["observation", "state"].shape == (2, 80)
    printed = capsys.readouterr().out
    assert "7 turn_on_the_stove | turn on the stove" in printed
    assert "the assets are in" in printed


def test_liberos_settings_and_words():
    text = (DOCS / "how-to" / "libero.md").read_text(encoding="utf-8")
    options = {each.name for each in fields(LiberoOptions)}
    assert set(re.findall(r"env\.options\.(\w+)", text)) == options
    words = set(re.findall(r"env=(\w+)", text))
    assert len(words) > 2
    folder = ROOT / "recipes" / "conf" / "env"
    assert {word for word in words if not (folder / f"{word}.yaml").is_file()} == set()


def test_own_value_model(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    from _towers import saved, tokenizer

    tower = tmp_path / "siglip"
    saved("siglip", tower)
    tokenizer().save_pretrained(tower)
    monkeypatch.chdir(tmp_path)
    names = run_snippets("how-to/own-value-model.md", [("google/siglip-base-patch16-224", tower)])
    assert (tmp_path / "value.safetensors").is_file()
    assert names["clips"]["features", "image"].shape == (4, 5, 16, 32)
    assert names["clips"]["siglip", "mask"].sum(-1).unique().tolist() == [3]
    assert names["model"].network.image.training_mode == "lora"
    image = TensorDict({"observation": {"image": names["image"]}}, [4, 5])
    values = names["progress"](image)["temporal_value"]
    torch.testing.assert_close(values.mean(), names["image"].float().mean() / 255)


def test_lerobot(tmp_path):
    pytest.importorskip("lerobot")
    from _lerobot import INPUTS, random_stats, smolvla_config
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    from rftf_torchrl import LeRobotSpec

    checkpoint = tmp_path / "checkpoint"
    config = smolvla_config(tmp_path / "smolvlm")
    SmolVLAPolicy(config).save_pretrained(checkpoint)
    spec = LeRobotSpec.from_config(config, INPUTS, stats=random_stats())
    for processor in spec.processors():
        processor.save_pretrained(checkpoint)
    names = run_snippets("how-to/lerobot.md", [("lerobot/smolvla_base", checkpoint)])
    assert names["decisions"]["vla_action", "chunk"].shape == (2, 3, 4)
    assert float(names["losses"]["mean_ratio"]) == 1.0


def test_large_policies(capsys):
    pytest.importorskip("peft")
    torch.manual_seed(0)
    names = run_snippets("how-to/large-policies.md")
    assert float(names["first"]["kl_reference"]) < 1e-4, "pieces of the batch round differently"
    assert abs(float(names["first"]["max_ratio"]) - 1) < 0.01
    assert float(names["losses"]["kl_reference"]) > 0
    trained = {part.part: part.trained for part in names["table"].parts}
    assert trained["tower"] == 0
    assert 0 < trained["backbone"] < names["table"].parts[1].parameters
    assert trained["head"] == names["table"].parts[2].parameters
    assert capsys.readouterr().out.startswith("| part | parameters |")


def test_every_choice_of_a_config_group_is_explained():
    page = (DOCS / "how-to" / "configuration.rst").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for file in (ROOT / "recipes" / "conf").glob("*/*.yaml"):
        group, choice = file.parent.name, file.stem
        assert f"``{group}={choice}``" in page
        if group in ("env", "policy", "value"):
            rows = re.findall(rf"\| `{group}=` \| (.+?) \|", readme)
            assert f"`{choice}`" in ", ".join(rows).split(", "), choice


@pytest.fixture(scope="module")
def settings_tables():
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        yield pytest.importorskip("settings_tables", exc_type=ImportError)
    finally:
        sys.path.remove(str(DOCS / "_ext"))


def test_every_setting_is_in_a_table_with_type_and_meaning(settings_tables):
    run = settings_tables.fields_of(schema.RunConfig)
    groups = [field for field in fields(schema.RunConfig) if settings_tables.is_group(field)]
    for group in groups:
        run += settings_tables.fields_of(group.default_factory, f"{group.name}.")
    plain, _ = setting_names(schema.RunConfig)
    grouped = {field.name for field in groups}
    assert [row[0].strip("`") for row in run if "." not in row[0]] == [
        field.name for field in fields(schema.RunConfig) if field.name not in grouped
    ]
    assert {row[0].strip("`") for row in run} == set(plain) - grouped
    assert all(kind and default and meaning for _, kind, default, meaning in run)
    gamma = ("number, at least 0, at most 1", "``0.97``", "discount per decision.")
    assert ("``ppo.gamma``", *gamma) in run


def test_every_kind_has_a_table_of_its_options(settings_tables):
    tables = {word: rows for word, rows, _ in settings_tables.kinds()}
    assert list(tables) == [
        *(f"env.kind={kind}" for kind in SIMULATORS.names),
        *(f"policy.kind={kind}" for kind in POLICIES.names),
        *(f"value.kind={kind}" for kind in VALUE_KINDS.names),
        *(f"reward.form={form}" for form in FORMS.names),
        *(f"data.kind={kind}" for kind in READERS.names),
    ]
    assert tables["value.kind=small"] == [
        (
            "``value.options.channels``",
            "list of 3 whole numbers, at least 1",
            "``[16,32,32]``",
            "output channels of the image encoder's convolutions.",
        )
    ]
    kinds = {row[0]: row[1] for row in tables["env.kind=calvin"]}
    assert kinds["``env.options.scene``"] == "``A``, ``B``, ``C``, ``D``"
    assert kinds["``env.options.wrist_size``"] == "whole number, at least 1; or ``null``"
