"""What makes fine-tuning cheaper changes no number: towers that run once, pieces, compilation."""

import logging
from dataclasses import replace

import pytest
from _vla_settings import CASES, SHORT_PROMPT, VLA

pytest.importorskip("transformers")
pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]

REUSED = {
    "connector trains": ([], {"patches"}),
    "adapters": (["policy.lora_rank=2", "policy.lora_targets=[up_proj]"], {"image_tokens"}),
    "no room": (["ppo.cache_gib=1e-9"], set()),
}


@pytest.mark.parametrize("case", REUSED)
def test_the_vision_tower_runs_once_a_decision(
    configure, demos, tmp_path, case, monkeypatch, caplog
):
    from rftf_torchrl import save_tiny_vlm
    from rftf_torchrl.configs import learner
    from rftf_torchrl.configs.policies import vision_language_model
    from rftf_torchrl.policies.transformers_vla.backbone import tower_of
    from rftf_torchrl.recipes import finetune as recipe
    from rftf_torchrl.recipes.train_bc import clone

    overrides, names = REUSED[case]
    if case == "adapters":
        pytest.importorskip("peft")
    config = configure(
        *VLA,
        SHORT_PROMPT,
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
    load_policy, add_advantages, update = learner.load_policy, recipe.add_advantages, recipe.update

    def hooked(file, **kind):
        policy, spec = load_policy(file, **kind)
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
        data = args[1]
        ratios.append(float(loss_module(data.exclude("next"))["max_ratio"]))
        pieces = -(-len(data) // config.ppo.minibatch)
        if names:  # one decision tells the size, then each goes through the tower once
            assert before[-1] == 1 + pieces
        del calls[:]
        metrics = update(config, loss_module, *args, **kwargs)
        during.append(len(calls))
        assert during[-1] == (0 if names else config.ppo.epochs * pieces)
        return metrics

    monkeypatch.setattr(learner, "load_policy", hooked)
    monkeypatch.setattr(recipe, "add_advantages", prepared)
    monkeypatch.setattr(recipe, "update", updated)
    with caplog.at_level(logging.WARNING, logger="finetune"):
        recipe.finetune(config)
    assert len(during) == config.ppo.iterations == 2
    assert ratios == pytest.approx([1, 1], abs=1e-5)
    assert ("more than ppo.cache_gib=1e-09 allows" in caplog.text) == (case == "no room")


def test_pieces_give_the_numbers_of_the_minibatch(configure, demos, tmp_path):
    from rftf_torchrl import read_metrics
    from rftf_torchrl.recipes import finetune as recipe
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

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
        measured[micro_batch] = read_metrics(folder / "metrics.csv")
        texts[micro_batch] = (folder / "metrics.csv").read_text(encoding="utf-8")
    whole = measured[None]
    assert texts[config.ppo.minibatch] == texts[None]
    assert texts[3] != texts[None]
    exact = {"loss_objective", "loss_critic", "loss_kl", "kl", "gradient_norm", "success"}
    for row, pieces in zip(whole, measured[3], strict=True):
        for name in exact & row.keys():
            assert pieces[name] == pytest.approx(row[name], rel=1e-3, abs=1e-5), name


def test_what_is_compiled_is_what_every_forward_calls(configure, tmp_path, monkeypatch):
    from rftf_torchrl import save_tiny_vlm
    from rftf_torchrl.configs import policies

    config = configure(
        *VLA,
        SHORT_PROMPT,
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
