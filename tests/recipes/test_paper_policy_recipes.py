"""GR-MG and Seer at tiny sizes through the recipes: clone, fine-tune, evaluate, on Meta-World."""

import json
from dataclasses import replace

import pytest
import torch
from interrupted import interrupted_and_resumed
from safetensors.torch import load_file
from tiny import TINY

pytest.importorskip("transformers")
pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]

SETTINGS = [
    *(setting for setting in TINY if not setting.startswith(("env.", "demos.per", "evaluation."))),
    "env.image_size=32",
    "env.tasks=[window-open,window-close]",
    "env.chunk_size=2",
    "env.options.action_repeat=8",
    "demos.per_task=1",
    "demos.held_out_per_task=1",
    "evaluation.episodes_per_task=1",
    "evaluation.swapped_per_task=1",
    "evaluation.video_episodes=0",
    "cloning.steps=3",
    "cloning.gripper_threshold=0",
    "value.steps=2",
    "ppo.minibatch=4",
    "ppo.learning_rate=1e-3",
]
SIZES = (
    "hidden: 32, layers: 2, heads: 4, history: 3, "
    "image: {image_size: 32, dim: 32, depth: 1, heads: 4}, "
    "text: {vocab_size: 64, context: 12, width: 32, layers: 2, heads: 4, dim: 32}, "
    "resampler_latents: 2, resampler_depth: 1, resampler_heads: 2, resampler_head_dim: 8"
)
POLICIES = {
    "gr_mg": f"policy.options.config={{{SIZES}, act_dim: 16, style_dim: 4, progress_dim: 16}}",
    "seer": f"policy.options.config={{{SIZES}, foresight: 4}}",
}


@pytest.fixture(scope="module")
def demos(configure, tmp_path_factory):
    from rftf_torchrl.recipes.collect_demos import collect

    config = configure(
        *SETTINGS, "env.horizon=6", f"output={tmp_path_factory.mktemp('paper_demos')}"
    )
    collect(config)
    return f"demos.path={config.output}/demos"


def test_random_weights_that_stay_are_warned_of_once(configure, tmp_path, caplog):
    from rftf_torchrl.configs import policies

    settings = [*SETTINGS, "policy=gr_mg", f"{POLICIES['gr_mg']}", f"output={tmp_path}"]
    policy, _ = policies.new_policy(configure(*settings), 4, 4)
    frozen = sum(p.numel() for p in policy.parameters() if not p.requires_grad)
    assert [record.getMessage() for record in caplog.records] == [
        f"policy.kind=gr_mg starts from random weights, and {frozen} of them are frozen as they "
        "are, such as those of its encoders: set policy.pretrained, unless this only tries a run"
    ]
    caplog.clear()
    policies.new_policy(configure(*TINY, f"output={tmp_path}"), 39, 4)
    assert not caplog.records


def watch_encoder(monkeypatch):
    """How often the image encoder ran in each update of an iteration."""
    from rftf_torchrl.paper_policies.blocks.vit import MAEEncoder
    from rftf_torchrl.recipes import finetune as recipe

    forward, update, seen, found = MAEEncoder.forward, recipe.update, [], []

    def counted(encoder, image):
        seen.append(len(image))
        return forward(encoder, image)

    def watched(*args, **kwargs):
        assert seen, "rollouts and what precedes the update run it"
        del seen[:]
        metrics = update(*args, **kwargs)
        found.append(len(seen))
        return metrics

    monkeypatch.setattr(MAEEncoder, "forward", counted)
    monkeypatch.setattr(recipe, "update", watched)
    return found


@pytest.mark.parametrize("kind", POLICIES)
def test_clone_finetune_resume_and_evaluate(configure, demos, tmp_path, kind, monkeypatch):
    from rftf_torchrl import load_policy
    from rftf_torchrl.recipes.evaluate import evaluate
    from rftf_torchrl.recipes.finetune import finetune
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    config = configure(
        *SETTINGS,
        "env.horizon=2",
        f"policy={kind}",
        f"{POLICIES[kind]}",
        demos,
        f"output={tmp_path / 'run'}",
    )
    file = clone(config)
    policy, spec = load_policy(file)
    assert (spec.kind, spec.config.arm_dim, spec.wrist, spec.chunk_size) == (kind, 3, False, 2)
    fresh = spec.build().state_dict()
    assert fresh.keys() == policy.state_dict().keys()
    train_value(config)
    encoded = watch_encoder(monkeypatch)
    ended = finetune(config)
    assert encoded == [0] * (config.ppo.iterations + config.ppo.critic_warmup), "in the updates"
    assert ended["env_steps"] > 0
    before, after = load_file(file), load_file(ended["policy"])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    trained = {name for name, value in policy.named_parameters() if value.requires_grad}
    assert changed <= trained, "the encoders stay frozen"
    assert all(
        torch.isfinite(value).all() for value in after.values() if value.dtype.is_floating_point
    )
    resumed = interrupted_and_resumed(config, file, tmp_path / "broken", monkeypatch)
    assert all(torch.equal(after[name], resumed[name]) for name in after)
    results = evaluate(replace(config, policy=replace(config.policy, path=ended["policy"])))
    assert results["language"] is not None
    assert json.loads((tmp_path / "run/evaluation/results.json").read_text(encoding="utf-8"))[
        "success"
    ]


def test_cloning_reads_histories_and_moves_the_gripper(configure, demos, tmp_path):
    """The loss is the likelihood of the recorded chunk, which the gripper's logits enter."""
    from rftf_torchrl.recipes.train_bc import clone

    config = configure(
        *SETTINGS,
        "policy=seer",
        f"{POLICIES['seer']}",
        "cloning.steps=40",
        "cloning.learning_rate=3e-3",
        demos,
        f"output={tmp_path}",
    )
    clone(config)
    losses = [
        float(row.split(",")[1])
        for row in (tmp_path / "bc/metrics.csv").read_text(encoding="utf-8").split()[1:]
    ]
    assert losses[-1] < losses[0]


def test_adapters_in_named_layers(configure, demos, tmp_path):
    pytest.importorskip("peft")
    from rftf_torchrl import load_policy
    from rftf_torchrl.configs.policies import add_adapters
    from rftf_torchrl.recipes.finetune import finetune
    from rftf_torchrl.recipes.train_bc import clone

    settings = [*SETTINGS, "env.horizon=2", "policy=seer", f"{POLICIES['seer']}", demos]
    file = clone(configure(*settings, f"output={tmp_path}"))
    config = configure(
        *settings,
        "reward=environment",
        "critic=none",
        "policy.lora_rank=2",
        "policy.lora_targets=[to_q,to_kv]",
        f"policy.path={file}",
        f"output={tmp_path}",
    )
    policy, _ = load_policy(file)
    add_adapters(config, policy)
    trained = [name for name, value in policy.named_parameters() if value.requires_grad]
    assert trained
    assert all("to_q.lora_" in name or "to_kv.lora_" in name for name in trained)
    before, after = load_file(file), load_file(finetune(config)["policy"])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith(("to_q.weight", "to_kv.weight")) for name in changed)
