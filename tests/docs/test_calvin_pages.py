"""The CALVIN pages' code runs: always on a stand-in of the simulator, and on the real one."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic_calvin import write_synthetic_calvin

import rftf_torchrl
from rftf_torchrl import (
    CalvinNotInstalledError,
    CalvinOptions,
    SmallOptions,
    require_calvin_env,
)
from rftf_torchrl.calvin import env
from rftf_torchrl.calvin.chains import play as chains
from rftf_torchrl.calvin.tasks import TASKS

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
WORK = 20


class FakeSimulator:
    """Any task is done after twenty lawful steps."""

    def __init__(self, scene):
        self.robot_obs, self.scene_obs = np.zeros(15), np.zeros(24)
        self.info = {"steps": 0}

    def reset(self, robot_obs, scene_obs):
        self.robot_obs, self.scene_obs = robot_obs, scene_obs

    def step(self, action):
        assert action.shape == (7,)
        assert np.abs(action).max() <= 1
        assert abs(action[6]) == 1
        self.info = {"steps": self.info["steps"] + 1}

    def achieved(self, start_info, tasks):
        return set(tasks) if self.info["steps"] - start_info["steps"] >= WORK else set()

    def picture(self, size):
        return np.zeros((3, size, size), np.uint8)

    wrist_picture = picture

    def close(self):
        pass


def run_snippets(page):
    blocks = re.findall(
        r"```python\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL
    )
    names = {"__name__": "__main__"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder beside a checkout of CALVIN's instructions; evaluations are cut short."""
    annotations = tmp_path / "calvin" / "calvin_models" / "conf" / "annotations"
    annotations.mkdir(parents=True)
    spoken = {name: [f"{task.instruction}, please"] for name, task in TASKS.items()}
    (annotations / "new_playtable_validation.yaml").write_text(
        yaml.safe_dump(spoken), encoding="utf-8"
    )
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(rftf_torchrl, "evaluate_chains", in_short)
    return here


def in_short(policy=None, *, chains, workers, **arguments):
    assert (chains, workers > 0) == (1000, True)
    return evaluate_in_short(policy, **arguments)


evaluate_in_short = partial(chains.evaluate_chains, chains=2, workers=0)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(env, "CalvinSimulator", FakeSimulator)
    monkeypatch.setattr(chains, "CalvinSimulator", FakeSimulator)
    monkeypatch.setattr(chains, "require_calvin_env", lambda: None)


def test_your_own_checkpoint(folder, fake):
    names = run_snippets("calvin-checkpoint.md")
    for report in (names["report"], names["by_controller"]):
        assert [result.steps for result in report.results] == [(WORK,) * 5] * 2
    assert names["report"].protocol == (
        "NOT the official protocol: 2 of the 1000 chains; other instructions than the benchmark's: "
        + names["report"].settings["sentences"]
    )
    assert names["by_controller"].protocol.endswith("the controller sees the simulator's state")
    assert rftf_torchrl.ChainReport.load("checkpoint.json").results == names["report"].results
    assert len((folder / "checkpoint.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    chunk = names["policy"](
        env.CalvinEnv(
            "open_drawer",
            image_size=200,
            wrist_size=84,
            tokenizer=names["tokenizer"],
            instruction=names["sentences"]["open_drawer"][0],
        )
        .reset()
        .unsqueeze(0)
    )["vla_action", "chunk"]
    assert chunk.shape == (1, 10, 7)


@pytest.mark.calvin
def test_your_own_checkpoint_in_calvin(folder, monkeypatch):
    try:
        require_calvin_env()
    except CalvinNotInstalledError as error:
        pytest.skip(str(error))
    monkeypatch.setitem(evaluate_in_short.keywords, "steps_per_subtask", 20)
    names = run_snippets("calvin-checkpoint.md")
    for report in (names["report"], names["by_controller"]):
        assert [result.index for result in report.results] == [0, 1]
        assert report.crashed == ()
    assert names["report"].settings["renderer"] != "none"


def test_calvin(folder, fake):
    write_synthetic_calvin(folder / "task_D_D")
    output = folder / "outputs" / "calvin" / "seed0"
    output.mkdir(parents=True)
    for label, after in (("cloned", 2), ("RFTF", 5)):
        report = evaluate_in_short(controller=partial(Lazy, after))
        report = rftf_torchrl.ChainReport(report.results, protocol=label)
        report.save(output / f"chains_{label}.json")
    names = run_snippets("calvin.md")
    assert names["comparison"]["difference"] == 3
    assert names["clip"]["observation", "image"].shape[1:] == (3, 64, 64)
    assert len(names["window"]) == 16
    assert (folder / "outputs" / "calvin_real" / "demos").is_dir()


class Lazy:
    """Works at the first tasks of a chain, and would rather not begin the next."""

    def __init__(self, tasks):
        self.left = tasks

    def start(self, task, simulator):
        self.left -= 1

    def action(self, simulator):
        if self.left < 0:
            simulator.info = {"steps": -WORK}
        return np.array([0, 0, 0, 0, 0, 0, 1.0])


def test_every_setting_of_the_commands_exists(configure_calvin):
    pages = "".join(
        (PAGES / page).read_text(encoding="utf-8") for page in ("calvin.md", "recipes.md")
    )
    settings = set(re.findall(r"\b((?:demos|evaluation|env|policy|collector)\.[\w.]+)=", pages))
    named = {"demo_scenes", "steps_per_subtask", "checkout"}
    assert {f"env.options.{name}" for name in named} <= settings
    for setting in settings:
        group, name = setting.rsplit(".", 1)
        options = {"env.options": CalvinOptions, "policy.options": SmallOptions}.get(group)
        assert hasattr(options or getattr(configure_calvin, group), name), setting


@pytest.fixture
def configure_calvin():
    from rftf_torchrl import RunConfig

    return RunConfig()
