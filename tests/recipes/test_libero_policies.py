"""Every kind of policy, tiny, through two iterations on LIBERO, from the images of two cameras.

GR-MG and Seer are not among them: they read the arm's state as CALVIN has it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from direct_libero import magic_expert
from safetensors.torch import load_file
from tiny import TINY

from rftf_torchrl import (
    BenchmarkReport,
    NoOpenGLBackendError,
    read_metrics,
    select_gl_backend,
)
from rftf_torchrl.libero.protocol import Protocol

pytestmark = [pytest.mark.libero, pytest.mark.recipe, pytest.mark.slow]

SETTINGS = [
    "env=libero_object_small",
    *(setting for setting in TINY if not setting.startswith("env.")),
    "env.image_size=32",
    "env.chunk_size=4",
    "env.horizon=2",
    "env.options.suite=libero_goal",
    "env.options.states_per_task=1",
    "env.tasks=[turn_on_the_stove]",
    "demos.noise=0.1",
    "cloning.steps=2",
    "cloning.gripper_threshold=0",
    "value.steps=2",
    "ppo.minibatch=4",
    "ppo.learning_rate=1e-3",
]
SMALL = ["gaussian", "arm_gripper", "tokens", "flow"]
KINDS = [*SMALL, "smolvlm", "paligemma", "qwen2_5_vl", "lerobot"]


def words(kind, folder):
    """The settings of a tiny policy; the last four start from a model in ``folder``."""
    if kind in SMALL:
        return [f"policy={kind}"]
    pytest.importorskip("transformers")
    from _vla_settings import CASES, SHORT_PROMPT

    from rftf_torchrl import save_tiny_vlm

    if kind in CASES:
        return [SHORT_PROMPT, *CASES[kind], f"policy.pretrained={save_tiny_vlm(folder, kind)}"]
    pytest.importorskip("lerobot")
    from _lerobot import save_act

    save_act(folder, state_dim=8, action_dim=7)
    return ["policy=lerobot", f"policy.pretrained={folder}"]


@pytest.fixture(scope="module")
def shared(configure, tmp_path_factory):
    """Demonstrations of an expert that turns the stove on by magic, and a value model."""
    try:
        select_gl_backend()
    except NoOpenGLBackendError as error:
        pytest.skip(str(error))
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_value import train_value

    expert = SimpleNamespace(start_expert=magic_expert)
    config = configure(*SETTINGS, f"output={tmp_path_factory.mktemp('libero')}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "rftf_torchrl.libero.expert.expert", expert)
        assert collect(config) == 3 * 6
    file, _ = train_value(config)
    return [f"demos.path={config.folder.demonstrations}", f"value.path={file}", "collector=single"]


@pytest.mark.parametrize("kind", KINDS)
def test_two_iterations_and_an_official_state(configure, shared, tmp_path, kind, monkeypatch):
    from rftf_torchrl.recipes import evaluate, finetune, train_bc

    monkeypatch.setattr(Protocol, "limit", lambda self, suite: 8)
    given = words(kind, tmp_path / "model")
    config = configure(*SETTINGS, *given, *shared, f"output={tmp_path / 'run'}")
    cloned = train_bc.clone(config)
    ended = finetune.finetune(config)
    assert config.ppo.iterations == 2
    assert len(read_metrics(config.tuned.metrics)) == 2 + (config.critic == "learned")
    before, after = load_file(cloned), load_file(ended["policy"])
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.isfinite(value).all() for value in after.values())
    evaluate.evaluate(replace(config, policy=replace(config.policy, path=ended["policy"])))
    report = BenchmarkReport.load(tmp_path / "run/evaluation/episodes_policy.json")
    assert [outcome.decisions for outcome in report.outcomes] == [2]
