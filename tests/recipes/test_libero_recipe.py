"""LIBERO in the recipes: an expert that cheats, a few steps of everything, the official states."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from direct_libero import magic_expert
from tiny import TINY

from rftf_torchrl import (
    BenchmarkReport,
    Episode,
    libero_states,
    load_demonstrations,
    make_simulator,
)
from rftf_torchrl.libero.protocol import PROTOCOLS, Protocol

pytestmark = [pytest.mark.libero, pytest.mark.recipe]

WORDS = [
    "env=libero_object_state",
    *(setting for setting in TINY if not setting.startswith("env.")),
    "env.options.suite=libero_goal",
    "env.tasks=[turn_on_the_stove]",
    "env.horizon=3",
    "env.chunk_size=4",
    "env.options.states_per_task=2",
    "ppo.iterations=1",
    "demos.noise=0.1",
]


@pytest.fixture
def recorded(configure, tmp_path, monkeypatch):
    """Settings, and demonstrations of an expert that turns the stove on by magic."""
    from rftf_torchrl.recipes.collect_demos import collect

    expert = SimpleNamespace(start_expert=magic_expert)
    monkeypatch.setitem(sys.modules, "rftf_torchrl.libero.expert.expert", expert)
    monkeypatch.setattr(Protocol, "limit", lambda self, suite: 10)
    config = configure(*WORDS, f"output={tmp_path}")
    assert collect(config) == 3 * 6
    return config


def test_the_expert_takes_over_from_the_policy(recorded, tmp_path):
    from rftf_torchrl.recipes import collect_demos, train_bc

    train_bc.clone(recorded)
    led = replace(recorded.demos, takeover=str(recorded.folder.policy), per_task=4)
    config = replace(recorded, output=str(tmp_path / "led"), demos=led)
    steps = collect_demos.collect(config)
    found = load_demonstrations(config.folder.demonstrations)
    decisions = [episode.takeover for episode in found.episodes if episode.split == "train"]
    assert set(decisions) == {0, 1}
    assert steps == 6 * len(found.episodes) + 4 * sum(decisions)


def test_every_stage_and_the_official_states(recorded):
    from rftf_torchrl.recipes import evaluate, finetune, train_bc, train_value

    demonstrations = load_demonstrations(recorded.folder.demonstrations)
    actions = demonstrations.frames["action"]
    assert actions.shape[1] == 7
    assert set(actions[:, -1].unique().tolist()) == {-1.0, 0.0}
    assert demonstrations.tasks[0].instruction == "turn on the stove"
    train_bc.clone(recorded)
    train_value.train_value(recorded)
    ended = finetune.finetune(recorded)
    assert ended["env_steps"] > 0
    before = evaluate.evaluate(recorded)
    folder = Path(recorded.output, "evaluation")
    report = BenchmarkReport.load(folder / "episodes_policy.json")
    assert [(o.task, o.seed, o.decisions) for o in report.outcomes] == [
        ("turn_on_the_stove", 0, 3),
        ("turn_on_the_stove", 1, 3),
    ]
    assert report.protocol == (
        "NOT the official protocol: 1 of the 10 tasks; 2 of the 50 initial states of each task; "
        "the policy looks every 4 actions, not 8; the policy sees the simulator's state "
        "(libero_goal as openvla-oft plays it, 1 tasks, 2 initial states each, 10 steps after 10 "
        "to settle)"
    )
    text = (folder / "start_policy.md").read_text(encoding="utf-8")
    opens, closes = re.search(r"opens \(fingers (\S+) m .* closes \((\S+) m\)", text).groups()
    assert float(opens) > 0.07 > 0.02 > float(closes)
    assert "state_mean: " in text
    assert evaluate.evaluate(recorded) == before
    simulator = make_simulator(recorded.env)
    comparison, table = simulator.compare(report, report, ("before", "after"))
    assert comparison["pooled"]["difference"] == 0
    assert "| before | after |" in table
    other = BenchmarkReport(report.outcomes, settings={**report.settings, "steps": 9})
    message = "steps is 10 before and 9 after; expected the same protocol"
    with pytest.raises(ValueError, match=f"^{message}$"):
        simulator.compare(report, other, ("before", "after"))


def test_a_study_ends_at_official_states(recorded, tmp_path):
    from rftf_torchrl.recipes.study_cells import Job, initial_states, load_start, make_start

    task = "turn_on_the_stove"
    factory = make_simulator(recorded.env).factory("test", tmp_path)
    assert np.array_equal(factory.starts(task, 1).state, libero_states("libero_goal", task)[1])
    assert (factory.max_steps, factory.horizon) == (10, 3)
    config = replace(recorded, evaluation=replace(recorded.evaluation, episodes_per_task=2))
    counts = initial_states(config, 1, False, 2)
    assert counts["training"] > 0
    assert (counts["evaluation"], counts["shared"]) == (2, 0)
    job = Job(tmp_path / "study", "one", "bc", config, False, 1, 1, "", "")
    make_start(job)
    assert load_start(job)["outcomes"] == {task: [False, False]}


def test_tasks_share_environments(configure, tmp_path):
    tasks = ["turn_on_the_stove", "put_the_bowl_on_the_plate", "put_the_bowl_on_the_stove"]
    config = configure(
        *WORDS, f"env.tasks=[{','.join(tasks)}]", "env.options.environments=2", f"output={tmp_path}"
    )
    factory = make_simulator(config.env).factory("train", tmp_path)
    assert [factory.environment_of(Episode(task, 0)) for task in tasks] == [0, 1, 0]


@pytest.mark.parametrize("word", ["spatial", "object", "goal", "10", "90"])
def test_every_suite_has_a_word(configure, tmp_path, word):
    config = configure(f"env=libero_{word}", f"output={tmp_path}")
    simulator = make_simulator(config.env)
    assert list(simulator.tasks) == list(config.env.tasks)
    steps = config.env.horizon * config.env.chunk_size
    limit = {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}[word]
    assert limit <= steps < limit + config.env.chunk_size


def test_every_named_protocol(configure):
    steps = {name: protocol.steps["libero_spatial"] for name, protocol in PROTOCOLS.items()}
    assert steps == {"openvla-oft": 220, "openpi": 220, "lerobot": 280}
    assert np.unique([len(protocol.steps) for protocol in PROTOCOLS.values()]).tolist() == [5]
