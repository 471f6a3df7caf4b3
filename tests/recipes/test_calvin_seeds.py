"""The pooled report of several CALVIN runs, from files as calvin.py writes them."""

import json
from dataclasses import replace

import pytest

from rftf_torchrl import ChainReport, ChainResult, ConfigError
from rftf_torchrl.digests import write_record

pytestmark = pytest.mark.recipe

ABOUT = "Demonstrations in scene A; and so on."
TASKS = ("open_drawer", "close_drawer")


def write_run(folder, seed, lengths):
    folder.mkdir()
    for label, numbers in lengths.items():
        chains = (ChainResult(i, TASKS, (9, 9)[: n + 1], n) for i, n in enumerate(numbers))
        report = ChainReport(tuple(chains), protocol="NOT the official protocol: 2 chains")
        report.save(folder / f"chains_{label}.json")
    for name in ("rftf", "sparse"):
        (folder / name).mkdir()
        (folder / name / "metrics.csv").write_text(
            "step,success,env_steps\n0,0.25,100\n1,0.5,200\n", encoding="utf-8"
        )
    steps = {"demonstrations": 5, "RFTF": 1200, "sparse": 1234}
    (folder / "results.json").write_text(
        json.dumps({"seed": seed, "simulator_steps": steps, "about": ABOUT}), encoding="utf-8"
    )


@pytest.fixture
def folders(tmp_path):
    made = [tmp_path / "seed3", tmp_path / "seed4"]
    write_run(made[0], 3, {"cloned": (0, 1), "sparse": (1, 1), "RFTF": (2, 1)})
    write_run(made[1], 4, {"cloned": (1, 1), "sparse": (1, 1), "RFTF": (1, 2)})
    return made


def test_the_report(folders, tmp_path):
    from rftf_torchrl.recipes.calvin_seeds import pool

    out = tmp_path / "report"
    results = pool(folders, out)
    assert results["seeds"] == [3, 4]
    assert results["comparisons"]["RFTF - cloned"]["by_seed"] == [1.0, 0.5]
    assert results["comparisons"]["sparse - cloned"]["difference"] == 0.25
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(results)
    )
    text = (out / "report.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0] == "# CALVIN, seeds 3, 4"
    assert lines[2] == "NOT the official protocol: 2 chains. Demonstrations in scene A; and so on."
    assert "| RFTF | 100.0% | 50.0% | 1.500 | 1.50, 1.50 |" in text
    assert "| open_drawer | 3 / 4 | 4 / 4 | 4 / 4 |" in text
    assert (out / "learning_curves.png").stat().st_size > 5000


def test_a_policy_with_another_departure_is_named(folders, tmp_path):
    from rftf_torchrl.recipes.calvin_seeds import pool

    file = folders[1] / "chains_RFTF.json"
    replace(ChainReport.load(file), protocol="NOT the official protocol: 1 crashed").save(file)
    pool(folders, tmp_path / "report")
    line = (tmp_path / "report" / "report.md").read_text(encoding="utf-8").splitlines()[2]
    assert f"RFTF of {folders[0]}: NOT the official protocol: 2 chains. " in line
    assert f"RFTF of {folders[1]}: NOT the official protocol: 1 crashed. " in line


def test_one_seed_says_nothing_about_training_again(folders, tmp_path):
    from rftf_torchrl.recipes.calvin_seeds import pool

    pool(folders[:1], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "# CALVIN, seed 3\n" in text
    assert "| – | +1.00 |" in text
    assert "NaN" not in (tmp_path / "report" / "results.json").read_text(encoding="utf-8")


def test_a_seed_that_is_there_twice(folders, tmp_path):
    from rftf_torchrl.recipes.calvin_seeds import pool

    with pytest.raises(ValueError, match="are both of seed 3: give each seed once"):
        pool([folders[0], folders[1], folders[0]], tmp_path / "report")


@pytest.mark.parametrize(
    ("name", "other"), [("rftf", {"reward.form": "peak"}), ("sparse", {"ppo.env_steps": 9})]
)
def test_runs_that_were_trained_otherwise(folders, tmp_path, name, other):
    from rftf_torchrl.recipes.calvin_seeds import pool

    settings = {"seed": 3, "reward.form": "difference", "ppo.env_steps": 100}
    write_record(folders[0] / name / "settings.json", settings)
    write_record(folders[1] / name / "settings.json", settings | {"seed": 4} | other)
    (setting, value) = next(iter(other.items()))
    message = f"  - {setting}={settings[setting]}, and now {value}\n"
    with pytest.raises(ConfigError, match=message):
        pool(folders, tmp_path / "report")
    write_record(folders[1] / name / "settings.json", settings | {"seed": 4})
    pool(folders, tmp_path / "report")


def test_a_report_does_not_overwrite_a_run(folders):
    from rftf_torchrl.recipes.calvin_seeds import pool

    (folders[0] / "quickstart.yaml").touch()
    before = (folders[0] / "results.json").read_bytes()
    with pytest.raises(ValueError, match="is the folder of a run, whose report it would overwrite"):
        pool(folders, folders[0])
    assert (folders[0] / "results.json").read_bytes() == before


def test_a_run_without_plain_ppo(folders, tmp_path):
    from rftf_torchrl.recipes.calvin_seeds import pool

    file = folders[1] / "results.json"
    run = json.loads(file.read_text(encoding="utf-8"))
    del run["simulator_steps"]["sparse"]
    file.write_text(json.dumps(run), encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.json has no plain PPO: run it again by"):
        pool(folders, tmp_path / "report")


def test_a_run_that_has_not_finished(folders, tmp_path):
    from rftf_torchrl.recipes.calvin_seeds import pool

    (folders[1] / "chains_RFTF.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"seed4 is no run of rftf calvin: leave it out"):
        pool(folders, tmp_path / "report")
    (folders[1] / "quickstart.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"chains_RFTF\.json: run it to its end first by"):
        pool(folders, tmp_path / "report")
    assert not (tmp_path / "report").exists()
