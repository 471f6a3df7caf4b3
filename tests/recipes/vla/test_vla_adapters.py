"""Low-rank adapters of vision-language models through the recipes, up to the merged policy."""

import logging
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from _vla_settings import CASES, SHORT_PROMPT, VLA
from interrupted import interrupted_and_resumed
from safetensors.torch import load_file
from tiny import TINY
from torchrl.envs.utils import ExplorationType, set_exploration_type

pytest.importorskip("transformers")
pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]


def test_adapters_and_pieces_of_minibatches(configure, demos, tmp_path, monkeypatch, caplog):
    """Low-rank adapters beside bfloat16 weights, accumulated gradients, activation checkpoints:
    the reference is the start bit for bit, a resumed run ends at the same weights, and the file
    holds an ordinary policy that equals the adapted one."""
    pytest.importorskip("peft")
    from rftf_torchrl import adapter_state_dict, load_policy, merge_lora, save_tiny_vlm
    from rftf_torchrl.configs.policies import vision_language_model
    from rftf_torchrl.recipes import finetune as recipe
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    config = configure(
        *VLA,
        SHORT_PROMPT,
        *CASES["smolvlm"],
        demos,
        f"policy.pretrained={save_tiny_vlm(tmp_path / 'model', 'smolvlm')}",
        "policy.options.dtype=bfloat16",
        "policy.lora_rank=2",
        "policy.checkpoint_activations=true",
        "ppo.micro_batch=3",
        f"output={tmp_path / 'run'}",
    )
    file = clone(config)
    train_value(config)

    update, policies, divergences = recipe.update, [], []

    def watched(config, loss_module, *args, **kwargs):
        if kwargs.get("train_policy") and not divergences:
            data = args[1].copy()
            divergences.append(float(loss_module(data.exclude("next"))["kl_reference"]))
        return update(config, loss_module, *args, **kwargs)

    monkeypatch.setattr(recipe, "update", watched)
    with caplog.at_level(logging.INFO, logger="finetune"):
        ended = recipe.finetune(config, on_iteration=lambda _, policy, __: policies.append(policy))
    assert divergences == [0.0], "the reference is the policy without adapters"
    assert "| policy |" in caplog.text
    adapted = policies[-1]
    adapters = {n: v for n, v in adapter_state_dict(adapted).items() if "lora_" in n}
    assert adapters
    assert all(value.dtype == torch.float32 for value in adapters.values())
    assert not any("lm_head" in name or "vision" in name for name in adapters)
    assert any(value.abs().sum() > 0 for name, value in adapters.items() if "lora_B" in name)
    backbone = vision_language_model(adapted).backbone
    assert all("lora_" in n for n, p in backbone.named_parameters() if p.requires_grad)

    before, after = load_file(file), load_file(ended["policy"])
    assert before.keys() == after.keys(), "the file holds an ordinary policy"
    merged = merge_lora(deepcopy(adapted)).state_dict()
    loaded = load_policy(ended["policy"])[0].state_dict()
    assert all(torch.equal(merged[name], loaded[name]) for name in loaded)

    monkeypatch.setattr(recipe, "update", update)
    resumed = interrupted_and_resumed(config, file, tmp_path / "broken", monkeypatch)
    assert all(torch.equal(after[name], resumed[name]) for name in after)


def test_merged_adapters_act_as_the_adapted_policy(configure, tmp_path):
    pytest.importorskip("peft")

    from rftf_torchrl import Episode, load_policy, merge_lora, save_policy, save_tiny_vlm
    from rftf_torchrl.configs.episodes import episode_collector
    from rftf_torchrl.configs.policies import add_adapters, fit_in_memory, new_policy

    config = configure(
        *VLA,
        SHORT_PROMPT,
        "policy=paligemma",
        "policy.lora_rank=2",
        "policy.lora_targets=[q_proj,up_proj]",
        "policy.checkpoint_activations=true",
        "collector.workers=1",
        f"policy.pretrained={save_tiny_vlm(tmp_path / 'model', 'paligemma')}",
        f"output={tmp_path / 'run'}",
    )
    policy, spec = new_policy(config, 4, 4)
    add_adapters(config, policy)
    fit_in_memory(config, policy)
    with episode_collector(config, "train", policy, spec) as collector:
        data = collector.collect([Episode("window-open", 1)], deterministic=True)
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        collector.update_policy_weights_()
        moved = collector.collect([Episode("window-open", 1)], deterministic=True)
    assert not torch.allclose(data["loc"][0], moved["loc"][0], atol=1e-4)
    save_policy(merge_lora(deepcopy(policy)), spec, tmp_path / "policy.safetensors")
    whole = load_policy(tmp_path / "policy.safetensors")[0]
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        again = whole(moved.select("vla_inputs", "observation").clone())
    torch.testing.assert_close(again["loc"], moved["loc"], atol=1e-5, rtol=1e-4)


def test_another_policy_than_the_settings_say(configure, tmp_path):
    from rftf_torchrl.configs import policies

    config = configure(*TINY, "policy=smolvlm", "env.image_size=32", f"output={tmp_path}")
    small = replace(config, policy=replace(config.policy, kind="small", options={}))
    policy, _ = policies.new_policy(
        replace(small, policy=replace(small.policy, pretrained=None)), 4, 4
    )
    adapted = replace(config, policy=replace(config.policy, lora_rank=2))
    with pytest.raises(ValueError, match=r"^policy\.kind=transformers, but the policy in"):
        policies.add_adapters(adapted, policy)
