"""Policies on vision-language models through the recipes: clone, fine-tune, resume, evaluate."""

import json
import logging
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from interrupted import interrupted_and_resumed
from safetensors.torch import load_file
from tiny import TINY
from torchrl.envs.utils import ExplorationType, set_exploration_type

pytest.importorskip("transformers")
pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]

VLA = [
    *(setting for setting in TINY if not setting.startswith(("env.", "demos.per", "evaluation."))),
    "env.image_size=32",
    "env.tasks=[window-open,window-close]",
    "env.horizon=2",
    "env.chunk_size=2",
    "env.action_repeat=8",
    "demos.per_task=1",
    "demos.held_out_per_task=1",
    "evaluation.episodes_per_task=1",
    "evaluation.swapped_per_task=1",
    "evaluation.video_episodes=1",
    "evaluation.video_size=64",
    "cloning.steps=2",
    "value.steps=2",
    "ppo.learning_rate=1e-3",
    "ppo.minibatch=4",
    "policy.prompt_tokens=32",
]
# The expert needs its time for the demonstrations; fine-tuning makes two decisions an episode.
LONG = "env.horizon=6"

CASES = {
    "smolvlm": ["policy=smolvlm", "policy.bins=16", "policy.image_options.size.longest_edge=28"],
    "paligemma": ["policy=paligemma", "critic=residual"],
    "qwen2_5_vl": [
        "policy=qwen_vl",
        "policy.head=flow",
        "policy.flow_steps=2",
        "policy.image_options.size.shortest_edge=784",
        "policy.image_options.size.longest_edge=784",
    ],
}


@pytest.fixture(scope="module")
def demos(configure, tmp_path_factory):
    from collect_demos import collect

    config = configure(*VLA, LONG, f"output={tmp_path_factory.mktemp('demos')}")
    assert collect(config) > 0
    return f"demos.path={config.output}/demos"


@pytest.mark.parametrize("family", CASES)
def test_clone_finetune_resume_and_evaluate(configure, demos, tmp_path, family, monkeypatch):
    import finetune as recipe
    from evaluate import evaluate
    from train_bc import clone
    from train_value import train_value

    from rftf_torchrl.modules import load_policy
    from rftf_torchrl.modules.transformers_vla import save_tiny_vlm

    folder = save_tiny_vlm(tmp_path / "model", family)
    config = configure(
        *VLA, *CASES[family], demos, f"policy.pretrained={folder}", f"output={tmp_path / 'run'}"
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
    assert json.loads((tmp_path / "run/evaluation/results.json").read_text())["policy"]
    assert load_policy(whole["policy"])[1].kind == "transformers"


def test_workers_collect_tensors_alone(configure, demos, tmp_path):
    """Two processes get pickled environments with the processor; what comes back holds no string,
    and the policy's inputs once."""
    from simulators import episode_collector
    from train_bc import new_policy

    from rftf_torchrl.envs import Episode
    from rftf_torchrl.modules.transformers_vla import save_tiny_vlm

    folder = save_tiny_vlm(tmp_path / "model", "qwen2_5_vl")
    config = configure(
        *VLA,
        "policy=qwen_vl",
        "policy.decoding=autoregressive",
        "policy.bins=16",
        "policy.image_options.size.shortest_edge=784",
        "policy.image_options.size.longest_edge=784",
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


def test_adapters_and_pieces_of_minibatches(configure, demos, tmp_path, monkeypatch, caplog):
    """Low-rank adapters beside bfloat16 weights, accumulated gradients, activation checkpoints:
    the reference is the start bit for bit, a resumed run ends at the same weights, and the file
    holds an ordinary policy that equals the adapted one."""
    pytest.importorskip("peft")
    import finetune as recipe
    from policies import vision_language_model
    from train_bc import clone
    from train_value import train_value

    from rftf_torchrl.modules import adapter_state_dict, load_policy, merge_lora
    from rftf_torchrl.modules.transformers_vla import save_tiny_vlm

    config = configure(
        *VLA,
        *CASES["smolvlm"],
        demos,
        f"policy.pretrained={save_tiny_vlm(tmp_path / 'model', 'smolvlm')}",
        "policy.dtype=bfloat16",
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
            data = args[2].copy()
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


REUSED = {
    "connector trains": ([], {"patches"}),
    "adapters": (["policy.lora_rank=2", "policy.lora_targets=[up_proj]"], {"image_tokens"}),
    "no room": (["ppo.cache_gib=1e-9"], set()),
}


@pytest.mark.parametrize("case", REUSED)
def test_the_vision_tower_runs_once_a_decision(
    configure, demos, tmp_path, case, monkeypatch, caplog
):
    import finetune as recipe
    from policies import vision_language_model
    from train_bc import clone

    from rftf_torchrl.modules.transformers_vla import save_tiny_vlm
    from rftf_torchrl.modules.transformers_vla.backbone import tower_of

    overrides, names = REUSED[case]
    if case == "adapters":
        pytest.importorskip("peft")
    config = configure(
        *VLA,
        *CASES["smolvlm"],
        demos,
        "reward=sparse",
        "critic=none",
        f"policy.pretrained={save_tiny_vlm(tmp_path / 'model', 'smolvlm')}",
        f"output={tmp_path / 'run'}",
        *overrides,
    )
    clone(config)
    calls, before, during, ratios = [], [], [], []
    load_policy, add_advantages, update = recipe.load_policy, recipe.add_advantages, recipe.update

    def hooked(file):
        policy, spec = load_policy(file)
        tower = tower_of(vision_language_model(policy).backbone)
        tower.register_forward_hook(lambda *_: calls.append(1))
        return policy, spec

    def prepared(*args):
        del calls[:]
        data = add_advantages(*args)
        before.append(len(calls))
        assert (set(data["cache"].keys()) if "cache" in data else set()) == names
        assert "cache" not in data["next"]
        return data

    def updated(config, loss_module, *args, **kwargs):
        data = args[2]
        ratios.append(float(loss_module(data.exclude("next"))["max_ratio"]))
        pieces = -(-len(data) // config.ppo.minibatch)
        if names:  # one decision tells the size, then each goes through the tower once
            assert before[-1] == 1 + pieces
        del calls[:]
        metrics = update(config, loss_module, *args, **kwargs)
        during.append(len(calls))
        assert during[-1] == (0 if names else config.ppo.epochs * pieces)
        return metrics

    monkeypatch.setattr(recipe, "load_policy", hooked)
    monkeypatch.setattr(recipe, "add_advantages", prepared)
    monkeypatch.setattr(recipe, "update", updated)
    with caplog.at_level(logging.WARNING, logger="finetune"):
        recipe.finetune(config)
    assert len(during) == config.ppo.iterations == 2
    assert ratios == pytest.approx([1, 1], abs=1e-5)
    assert ("more than ppo.cache_gib=1e-09 allows" in caplog.text) == (case == "no room")


def test_merged_adapters_act_as_the_adapted_policy(configure, tmp_path):
    pytest.importorskip("peft")
    from policies import add_adapters, fit_in_memory, new_policy
    from simulators import episode_collector

    from rftf_torchrl.envs import Episode
    from rftf_torchrl.modules import load_policy, merge_lora, save_policy
    from rftf_torchrl.modules.transformers_vla import save_tiny_vlm

    config = configure(
        *VLA,
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


def test_pieces_give_the_numbers_of_the_minibatch(configure, demos, tmp_path):
    import finetune as recipe
    from train_bc import clone
    from train_value import train_value

    config = configure(*VLA, demos, "critic=learned", f"output={tmp_path / 'run'}")
    file = clone(config)
    train_value(config)
    measured, texts = {}, {}
    for micro_batch in (None, config.ppo.minibatch, 3):
        part = replace(
            config,
            output=str(tmp_path / f"pieces{micro_batch}"),
            ppo=replace(config.ppo, micro_batch=micro_batch),
            policy=replace(config.policy, path=str(file)),
            value=replace(config.value, path=f"{config.output}/value/value.safetensors"),
        )
        recipe.finetune(part)
        folder = tmp_path / f"pieces{micro_batch}" / "rftf"
        measured[micro_batch] = recipe.read_metrics(folder)
        texts[micro_batch] = (folder / "metrics.csv").read_text()
    whole = measured[None]
    assert texts[config.ppo.minibatch] == texts[None]
    assert texts[3] != texts[None]
    exact = {"loss_objective", "loss_critic", "loss_kl", "kl", "gradient_norm", "success"}
    for row, pieces in zip(whole, measured[3], strict=True):
        for name in exact & row.keys():
            assert pieces[name] == pytest.approx(row[name], rel=1e-3, abs=1e-5), name


def test_the_gripper_camera_is_a_second_picture(configure, tmp_path):
    import policies

    from rftf_torchrl import keys
    from rftf_torchrl.modules.transformers_vla import save_tiny_vlm

    folder = save_tiny_vlm(tmp_path / "model", "smolvlm")
    settings = ["env=calvin", "policy=smolvlm", "policy.bins=16", f"policy.pretrained={folder}"]
    read = []
    for camera in ([], ["env.wrist_size=84"]):
        spec = policies.policy_spec(configure(*settings, *camera, "output=x"), 11, 7)
        read.append(spec.observation_transform().in_keys[:-1])
    assert read == [[keys.IMAGE], [keys.IMAGE, keys.WRIST_IMAGE]]


def test_another_policy_than_the_settings_say(configure, tmp_path):
    import policies

    config = configure(*TINY, "policy=smolvlm", "env.image_size=32", f"output={tmp_path}")
    small = replace(config, policy=replace(config.policy, kind="small"))
    policy, _ = policies.new_policy(
        replace(small, policy=replace(small.policy, pretrained=None)), 4, 4
    )
    adapted = replace(config, policy=replace(config.policy, lora_rank=2))
    with pytest.raises(ValueError, match=r"^policy\.kind=transformers, but the policy in"):
        policies.add_adapters(adapted, policy)


def test_what_is_compiled_is_what_every_forward_calls(configure, tmp_path, monkeypatch):
    import policies

    from rftf_torchrl.modules.transformers_vla import save_tiny_vlm

    config = configure(
        *VLA,
        *CASES["smolvlm"],
        "policy.compile=true",
        f"policy.pretrained={save_tiny_vlm(tmp_path / 'model', 'smolvlm')}",
        f"output={tmp_path / 'run'}",
    )
    policy, _ = policies.new_policy(config, 4, 4)
    compiled = []
    monkeypatch.setattr(policies, "compile_module", compiled.append)
    policies.fit_in_memory(config, policy)
    network = policies.vision_language_model(policy)
    assert compiled == [network.backbone.model]


def test_a_small_flow_policy(configure, tmp_path):
    """Cloned by flow matching, whose loss falls; fine-tuned along its stored paths."""
    from collect_demos import collect
    from finetune import finetune, read_metrics
    from train_bc import clone
    from train_value import train_value

    from rftf_torchrl.modules import FlowActor, load_policy

    config = configure(*TINY, "policy=flow", "cloning.steps=60", f"output={tmp_path}")
    collect(config)
    file = clone(config)
    losses = [row["loss_bc"] for row in read_metrics(tmp_path / "bc")]
    assert losses[-1] < losses[0]
    train_value(config)
    before, after = load_file(file), load_file(finetune(config)["policy"])
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert isinstance(load_policy(file)[0], FlowActor)
    first = read_metrics(tmp_path / "rftf")[0]
    assert first["mean_ratio"] == pytest.approx(1, abs=1e-4)
