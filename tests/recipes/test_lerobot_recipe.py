"""A LeRobot policy from its folder through the recipes: clone, fine-tune, evaluate."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY

pytest.importorskip("lerobot")
from _lerobot import save_act

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]

SETTINGS = [
    *(setting for setting in TINY if not setting.startswith(("env.", "demos.per", "evaluation."))),
    "policy=lerobot",
    "env.image_size=32",
    "env.tasks=[window-open,window-close]",
    "env.chunk_size=2",
    "env.options.action_repeat=8",
    "demos.per_task=1",
    "demos.held_out_per_task=1",
    "evaluation.episodes_per_task=1",
    "evaluation.swapped_per_task=1",
    "evaluation.video_episodes=0",
    "cloning.steps=2",
    "value.steps=2",
    "ppo.minibatch=4",
    "ppo.learning_rate=1e-3",
]


def test_clone_finetune_and_evaluate(configure, tmp_path):
    from rftf_torchrl import load_policy
    from rftf_torchrl.configs.policies import new_policy
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.evaluate import evaluate
    from rftf_torchrl.recipes.finetune import finetune
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    saved = save_act(tmp_path / "act", state_dim=4, action_dim=4).state_dict()
    settings = [*SETTINGS, f"policy.pretrained={tmp_path / 'act'}", f"output={tmp_path / 'run'}"]
    collect(configure(*settings, "env.horizon=6"))
    config = configure(*settings, "env.horizon=2")
    policy, spec = new_policy(config, 4, 4)
    loaded = policy.state_dict()
    for name, value in saved.items():
        found = [entry for other, entry in loaded.items() if other.endswith(f".policy.{name}")]
        assert len(found) == 1, name
        assert torch.equal(found[0], value), name
    assert spec.inputs == {
        "observation.images.camera1": ("observation", "image"),
        "observation.state": ("observation", "state"),
    }
    file = clone(config)
    train_value(config)
    ended = finetune(config)
    before, after = load_file(file), load_file(ended["policy"])
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert load_policy(ended["policy"])[1].kind == "lerobot"
    results = evaluate(replace(config, policy=replace(config.policy, path=ended["policy"])))
    assert results["language"] is not None
