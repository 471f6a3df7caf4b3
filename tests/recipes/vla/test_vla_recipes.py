"""Policies on vision-language models through the recipes: clone, fine-tune, resume, evaluate."""

import json
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


@pytest.mark.parametrize("family", CASES)
def test_clone_finetune_resume_and_evaluate(configure, demos, tmp_path, family, monkeypatch):
    from rftf_torchrl import load_policy, save_tiny_vlm
    from rftf_torchrl.recipes import finetune as recipe
    from rftf_torchrl.recipes.evaluate import evaluate
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    folder = save_tiny_vlm(tmp_path / "model", family)
    config = configure(
        *VLA,
        SHORT_PROMPT,
        *CASES[family],
        demos,
        f"policy.pretrained={folder}",
        f"output={tmp_path / 'run'}",
    )
    file = clone(config)
    train_value(config)
    whole = recipe.finetune(config)
    assert whole["env_steps"] > 0
    before, after = load_file(file), load_file(whole["policy"])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(".queries" in name for name in changed)
    assert any("layers" in name for name in changed)
    assert not any("vision_" in name or "visual" in name for name in changed), "it is frozen"
    assert all(
        torch.isfinite(weight).all() for weight in after.values() if weight.is_floating_point()
    )

    resumed = interrupted_and_resumed(config, file, tmp_path / "broken", monkeypatch)
    assert all(torch.equal(after[name], resumed[name]) for name in after)

    tuned = replace(config, policy=replace(config.policy, path=whole["policy"]))
    results = evaluate(tuned)
    assert results["language"] is not None
    assert json.loads((tmp_path / "run/evaluation/results.json").read_text(encoding="utf-8"))[
        "policy"
    ]
    assert load_policy(whole["policy"])[1].kind == "transformers"


def test_workers_collect_tensors_alone(configure, demos, tmp_path):
    """Two processes get pickled environments with the processor; what comes back holds no string,
    and the policy's inputs once."""
    from rftf_torchrl import Episode, save_tiny_vlm
    from rftf_torchrl.configs.episodes import episode_collector
    from rftf_torchrl.recipes.train_bc import new_policy

    folder = save_tiny_vlm(tmp_path / "model", "qwen2_5_vl")
    config = configure(
        *VLA,
        SHORT_PROMPT,
        "policy=qwen_vl",
        "policy.options.decoding=autoregressive",
        "policy.options.bins=16",
        "policy.options.image_options.size.shortest_edge=784",
        "policy.options.image_options.size.longest_edge=784",
        "collector.workers=2",
        f"policy.pretrained={folder}",
        f"output={tmp_path / 'run'}",
    )
    policy, spec = new_policy(config, 4, 4)
    episodes = [Episode("window-open", 1), Episode("window-close", 2), Episode("window-open", 3)]
    episodes.append(Episode("window-close", 2, "open the window"))
    with episode_collector(config, "train", policy, spec) as collector:
        data = collector.collect(episodes, deterministic=True)
    assert all(isinstance(value, torch.Tensor) for value in data.values(True, True))
    assert "language_instruction" not in data.keys()  # noqa: SIM118
    assert ("next", "vla_inputs", "pixel_values") not in data.keys(True)
    assert ("next", "observation", "image") in data.keys(True)
    ids = data["collector", "traj_ids"]
    prompts = data["vla_inputs", "input_ids"]
    assert torch.equal(prompts[ids == 0][0], prompts[ids == 3][0])
    assert not torch.equal(prompts[ids == 1][0], prompts[ids == 3][0])
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        again = policy(data.select("vla_inputs", "observation").clone())
    torch.testing.assert_close(again["logits"], data["logits"], atol=1e-5, rtol=1e-4)


def test_the_gripper_camera_is_a_second_picture(configure, tmp_path):
    from rftf_torchrl import keys, policy_spec, run_sizes, save_tiny_vlm

    folder = save_tiny_vlm(tmp_path / "model", "smolvlm")
    settings = [
        "env=calvin",
        "policy=smolvlm",
        "policy.options.bins=16",
        f"policy.pretrained={folder}",
    ]
    read = []
    for camera in ([], ["env.options.wrist_size=84"]):
        config = configure(*settings, *camera, "output=x")
        spec = policy_spec(config.policy, run_sizes(config, 11, 7))
        read.append(spec.observation_transform().in_keys[:-1])
    assert read == [[keys.IMAGE], [keys.IMAGE, keys.WRIST_IMAGE]]


def test_a_small_flow_policy(configure, tmp_path):
    """Cloned by flow matching, whose loss falls; fine-tuned along its stored paths."""
    from rftf_torchrl import FlowActor, load_policy, read_metrics
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.finetune import finetune
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    config = configure(*TINY, "policy=flow", "cloning.steps=60", f"output={tmp_path}")
    collect(config)
    file = clone(config)
    losses = [row["loss_bc"] for row in read_metrics(tmp_path / "bc" / "metrics.csv")]
    assert losses[-1] < losses[0]
    train_value(config)
    before, after = load_file(file), load_file(finetune(config)["policy"])
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert isinstance(load_policy(file)[0], FlowActor)
    first = read_metrics(tmp_path / "rftf" / "metrics.csv")[0]
    assert first["mean_ratio"] == pytest.approx(1, abs=1e-4)
