"""The simulator of the page runs through every recipe, by the page's own commands."""

import json
import re
import shlex
from pathlib import Path

import pytest

from rftf_torchrl import load_demonstrations

pytestmark = pytest.mark.recipe

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-simulator.md"
TINY = [
    "demos.per_task=6",
    "demos.held_out_per_task=2",
    "demos.noise=0.3",
    "cloning.steps=60",
    "cloning.batch_size=32",
    "value.steps=20",
    "value.clips=8",
    "value.frames=4",
    "value.rollout_episodes=2",
    "ppo.iterations=1",
    "ppo.episodes_per_task=2",
    "ppo.epochs=1",
    "ppo.minibatch=8",
    "evaluation.episodes_per_task=4",
    "evaluation.swapped_per_task=2",
    "collector.workers=0",
    "device=cpu",
]
STUDY = f"settings={['env=point', 'logger=none', *TINY]}"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder with the page's two files, as the working directory."""
    folder = tmp_path_factory.mktemp("point")
    (folder / "conf" / "env").mkdir(parents=True)
    (folder / "point_simulator.py").write_text(blocks("python")[0], encoding="utf-8")
    (folder / "conf" / "env" / "point.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder


def commands():
    text = "".join(blocks("bash")).replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("rftf ")]


def test_every_recipe_runs_on_it(folder, rftf):
    *single, study = commands()
    for arguments in single:
        rftf(*arguments, *TINY)
    assert [arguments[0] for arguments in single] == [
        "quickstart", "collect-demos", "train-bc", "train-value", "value-report", "finetune",
        "evaluate",
    ]  # fmt: skip
    demos = load_demonstrations(folder / "outputs/point/demos")
    assert len(demos.episodes) == 2 * (6 + 2)
    results = json.loads((folder / "outputs/point_quick/results.json").read_text(encoding="utf-8"))
    assert results["success"].keys() == {"cloned", "RFTF"}
    assert results["language"]["tasks"].keys() == {"left", "right"}
    assert (folder / "outputs/point/value_report/report.md").is_file()
    assert (folder / "outputs/point/evaluation/results.json").is_file()

    assert study[0] == "compare"
    study = [text for text in study if not text.startswith("settings=")]
    rftf(*study, STUDY, "seeds=[0]", "workers=0", "resamples=100")
    cells = sorted((folder / "outputs/point_study/cells").rglob("*.json"))
    assert len(cells) == 3
    assert json.loads(cells[0].read_text(encoding="utf-8"))["states"]["shared"] == 0


def test_its_settings_are_checked(folder, rftf, capsys):
    with pytest.raises(SystemExit):
        rftf(*commands()[1], "env.options.speed=0", "env.image_size=8")
    assert "env.options.speed=0: must be above 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        rftf(*commands()[1], "env.image_size=8")
    error = "env.image_size: the point has no image, set it to null"
    assert error in capsys.readouterr().err


def test_demonstrations_of_an_expert_of_ones_own(tmp_path, monkeypatch, rftf):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[-1], PAGE.name, "exec"), {})
    demos = load_demonstrations("gym_demos")
    assert [episode.success for episode in demos.episodes] == [True] * 7
    (command,) = re.findall(r"`rftf (train-bc env=gym .*?)`", PAGE.read_text(encoding="utf-8"))
    rftf(*command.split(), "cloning.steps=2")
    assert (tmp_path / "outputs/gym/bc/policy.safetensors").is_file()
