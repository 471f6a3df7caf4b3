"""The recipe's evaluation on CALVIN, without the simulator: which chains, what is written."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from tiny import CALVIN

from rftf_torchrl import PRIVILEGED_DIM, ChainReport, benchmark_sequences, make_simulator
from rftf_torchrl.calvin import env
from rftf_torchrl.calvin.chains import play as chains
from rftf_torchrl.calvin.recording import ChainRecorder
from rftf_torchrl.envs.simulator import Recording
from rftf_torchrl.evaluation import parallel

pytestmark = pytest.mark.recipe


class FakeSimulator:
    """Any task of a chain's first three is done after two steps."""

    def __init__(self, scene):
        self.robot_obs, self.scene_obs, self.info = np.zeros(15), np.zeros(24), {"steps": 0}

    def reset(self, robot_obs, scene_obs):
        self.robot_obs, self.scene_obs, self.info = robot_obs, scene_obs, {"steps": 0}

    def step(self, action):
        self.info = {"steps": self.info["steps"] + 1}

    def achieved(self, start_info, tasks):
        done = self.info["steps"] <= 6 and self.info["steps"] - start_info["steps"] >= 2
        return set(tasks) if done else set()

    def close(self):
        pass


@pytest.fixture
def cloned(configure, tmp_path, monkeypatch):
    """The configuration of a folder with a policy, and a simulator that is none."""
    from rftf_torchrl import save_policy
    from rftf_torchrl.configs.policies import new_policy

    monkeypatch.setattr(env, "CalvinSimulator", FakeSimulator)
    monkeypatch.setattr(chains, "require_calvin_env", lambda: None)
    config = configure(*CALVIN, f"output={tmp_path}", name="calvin")
    config.folder.policy.parent.mkdir()
    save_policy(*new_policy(config, PRIVILEGED_DIM, 7), config.folder.policy)
    return config


def test_evaluate_plays_the_benchmarks_chains(cloned):
    from rftf_torchrl.recipes.evaluate import evaluate

    results = evaluate(cloned)
    folder = Path(cloned.output, "evaluation")
    report = ChainReport.load(folder / "chains_policy.json")
    assert results == report.to_dict()
    assert [r.tasks for r in report.results] == [c.tasks for c in benchmark_sequences(2)]
    assert [(r.length, r.steps) for r in report.results] == [(3, (2, 2, 2, 8))] * 2
    assert report.protocol.startswith(
        "NOT the official protocol: 8 steps per subtask; 2 of the 1000"
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "chains_policy.json",
        "chains_policy.jsonl",
    ]


def test_development_chains_are_neither_the_benchmarks_nor_the_recorded_ones(cloned):
    from rftf_torchrl.recipes.evaluate import evaluate

    cloned.env.options["development_chains"] = 3
    evaluate(cloned)
    report = ChainReport.load(Path(cloned.output, "evaluation", "chains_policy.json"))
    played = {r.tasks for r in report.results}
    assert len(report.results) == 3
    assert "other chains than the benchmark's" in report.protocol
    assert not played & {c.tasks for c in benchmark_sequences()}
    simulator = make_simulator(cloned.env)
    recording = Recording(Path(cloned.output, "demos"), 1, 1, (), seed=cloned.seed)
    recorder = ChainRecorder(cloned.env, simulator.options, recording, lambda _: None)
    for split in ("training", "validation"):
        assert not played & {job.chain.tasks for job in islice(recorder.chains(split), 600)}


def test_evaluate_again_plays_only_what_is_missing(cloned, monkeypatch):
    from rftf_torchrl.recipes import evaluate as recipe

    before = recipe.evaluate(cloned)
    finished = Path(cloned.output, "evaluation", "chains_policy.jsonl")
    lines = finished.read_text(encoding="utf-8").splitlines(keepends=True)
    finished.write_text("".join(lines[:2]), encoding="utf-8")
    played = []
    original = parallel.play_parts

    def counting(make_stage, play, left, **settings):
        played.extend(left)
        return original(make_stage, play, left, **settings)

    monkeypatch.setattr(parallel, "play_parts", counting)
    assert recipe.evaluate(cloned) == before
    assert played == [1]
