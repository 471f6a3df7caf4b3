"""The value model trained and reported on videos, with no simulator."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from _videos import write_lerobot, write_videos

from rftf_torchrl import (
    DataConfig,
    PeakMemory,
    TemporalValueModel,
    import_videos,
    load_demonstrations,
    read_made_by,
)
from rftf_torchrl.configs.record import DATA_AT, TRAINED_ON
from rftf_torchrl.configs.validation import ConfigError

pytestmark = pytest.mark.recipe

SMALL = [
    "data.image_size=16",
    "data.held_out=0.5",
    "value.steps=30",
    "value.clips=8",
    "value.frames=4",
    "value.random_shift=0",
    "evaluation.video_size=64",
    "logger=csv",
    "device=cpu",
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp("videos"), 8, failures=True)


@pytest.fixture(scope="module")
def trained(configure, videos, tmp_path_factory):
    """The configuration of a run that has trained on videos and their failures."""
    from rftf_torchrl.recipes.train_value import train_value

    output = tmp_path_factory.mktemp("run")
    config = configure(*SMALL, f"data.path={videos}", "value=ranking_failures", f"output={output}")
    train_value(config)
    return config


def test_a_value_model_of_videos(trained, videos):
    file = Path(trained.output, "value", "value.safetensors")
    report = json.loads((file.parent / "report.json").read_text(encoding="utf-8"))
    assert report["pairwise_accuracy"] > 0.9
    assert report["simulator_steps"] == 0
    made_by = read_made_by(file)
    assert made_by["data.path"] == str(videos)
    assert made_by["env.image_size"] == 16
    assert not any(name.startswith(("env.k", "demos", "policy")) for name in made_by)
    demos = load_demonstrations(Path(trained.output, "data"))
    assert [task.name for task in demos.tasks] == ["close the drawer", "open the drawer"]
    by = {(e.success, e.split) for e in demos.episodes}
    assert by == {(won, split) for won in (True, False) for split in ("train", "test")}
    model = TemporalValueModel.load(file)
    ends = [
        model(demos.frames[e.stop - 1 : e.stop])["temporal_value"].item()
        for e in demos.select(split="test").episodes
    ]
    won = [e.success for e in demos.select(split="test").episodes]
    least = min(value for value, success in zip(ends, won, strict=True) if success)
    assert least > max(value for value, success in zip(ends, won, strict=True) if not success)


def test_the_report(trained):
    from rftf_torchrl.recipes.value_report import report_value

    report = report_value(trained)
    folder = Path(trained.output, "value_report")
    counts = report["settings"]["episodes"]["open the drawer"]
    assert counts == {
        "demonstration": 2,
        "reversed": 2,
        "shuffled": 2,
        "wrong_instruction": 2,
        "success": 2,
        "failure": 2,
    }
    assert report["overall"]["outcome"]["final_auc"]["value"] == 1.0
    assert report["overall"]["demonstration"]["pairwise_accuracy"]["low"] > 0.9
    written = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert written["data"] == trained.data.path
    assert written["held_out_episodes"] == 8
    assert {file.name for file in (folder / "videos").glob("*.mp4")} == {
        "close_the_drawer.mp4",
        "open_the_drawer.mp4",
    }


def test_the_same_seed_gives_the_same_model(configure, trained, tmp_path):
    from rftf_torchrl.recipes.train_value import train_value

    settings = [*SMALL, f"data.path={trained.data.path}", "value=ranking_failures"]
    train_value(configure(*settings, f"output={tmp_path}"))
    one, other = (Path(o, "value", "value.safetensors") for o in (trained.output, tmp_path))
    models = [TemporalValueModel.load(file).state_dict() for file in (one, other)]
    assert all((models[0][name] == models[1][name]).all() for name in models[0])


def test_other_episodes_than_those_of_training_are_refused(configure, trained, tmp_path, caplog):
    from rftf_torchrl.recipes.value_report import report_value

    videos = shutil.copytree(trained.data.path, tmp_path / "videos")
    config = configure(*SMALL, f"data.path={videos}", "value=ranking_failures")
    config = replace(config, output=str(tmp_path / "run"))
    shutil.copytree(trained.output, config.output)
    file = config.folder.value_model
    model = TemporalValueModel.load(file)
    model.save(file, made_by={**model.made_by, DATA_AT: str(videos)})
    report_value(config)
    (videos / "open-0.mp4").unlink()
    rows = (videos / "captions.csv").read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if not row.startswith("open-0.mp4")]
    assert len(kept) == len(rows) - 1
    (videos / "captions.csv").write_text("\n".join(kept), encoding="utf-8")
    message = (
        f"{videos} has other episodes than when {file} was trained, so that it may have seen "
        "held-out ones: train it again, or give the data as they were"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        report_value(config)
    known = {n: said for n, said in model.made_by.items() if n not in (TRAINED_ON, DATA_AT)}
    model.save(file, made_by={**known, "data.path": str(videos)})  # as an older version wrote it
    report_value(config)
    assert f"{file} does not say on which episodes of {videos} it was trained" in caplog.text


def test_another_split_is_refused(configure, trained):
    from rftf_torchrl.recipes.value_report import report_value

    file = f"{trained.output}/value/value.safetensors"
    config = configure(
        *SMALL,
        f"data.path={trained.data.path}/",
        "data.held_out=0.25",
        f"output={trained.output}",
        f"data.cache={trained.output}/other",
    )
    with pytest.raises(ConfigError) as raised:
        report_value(config)
    assert str(raised.value) == (
        f"{file} was made with other settings:\n  - data.held_out=0.5, and now 0.25\nTo go on, "
        "give the settings of the training, so that the same episodes are held out."
    )


def test_a_model_that_cannot_be_calibrated_is_kept(configure, tmp_path, monkeypatch):
    """And calibrated in another way without training again, to what training gives at once."""
    from rftf_torchrl.recipes import train_value as recipe
    from rftf_torchrl.values.calibration import ValueCalibration

    fit = ValueCalibration.fit

    def refusing(self, *scores, mode, **rest):
        if mode == "instruction":
            raise ValueError("cannot calibrate: too short.")
        fit(self, *scores, mode=mode, **rest)

    monkeypatch.setattr(ValueCalibration, "fit", refusing)
    settings = [
        *SMALL,
        f"data.path={write_videos(tmp_path / 'videos')}",
        "value.calibration=instruction",
    ]
    config = configure(*settings, f"output={tmp_path}/run")
    kept = tmp_path / "run" / "value" / "uncalibrated.safetensors"
    command = f"rftf train-value output={tmp_path}/run with the same settings and"
    message = (
        f"cannot calibrate: too short. The trained model is kept in {kept}. To train another for "
        f"longer: {command} value.steps=60. To calibrate this one for all instructions together: "
        f"{command} resume=true value.calibration=global"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        recipe.train_value(config)
    assert kept.is_file()
    assert not config.folder.value_model.exists()

    in_one = replace(config.value, calibration="global")
    recipe.train_value(replace(config, value=in_one, output=f"{tmp_path}/at_once"))
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "fit", lambda *_: pytest.fail("it is trained already"))
        file, _ = recipe.train_value(replace(config, value=in_one, resume=True))
    assert file.read_bytes() == (tmp_path / "at_once" / "value" / file.name).read_bytes()
    assert not kept.exists()


def test_failures_that_nobody_labelled(configure, tmp_path):
    from rftf_torchrl.recipes.train_value import train_value

    videos = write_videos(tmp_path / "videos")
    config = configure(
        *SMALL, f"data.path={videos}", "value=ranking_failures", f"output={tmp_path}/run"
    )
    with pytest.raises(ValueError, match="but no episode") as raised:
        train_value(config)
    assert str(raised.value) == (
        f"value.failures=1.0, but no episode of {videos} to train on is labelled as a failure: "
        "label some, or set value.failures=0"
    )


def test_settings_are_checked(configure, tmp_path):
    write_lerobot(tmp_path / "set", dtype="image")
    with pytest.raises(ConfigError) as raised:
        configure(
            f"data.path={tmp_path}/set",
            "data.options.camra=front",
            "data.held_out=1.0",
            "output=x",
        )
    assert str(raised.value) == (
        "the configuration can't be run:\n"
        "  - data.held_out=1.0: must be below 1\n"
        "  - data.options.camra: the reader 'lerobot' has no such option, it has camera, success"
    )
    with pytest.raises(ConfigError, match=r"data\.path=nowhere: there is nothing at nowhere"):
        configure("data.path=nowhere", "output=x")


NO_SIMULATOR = """
import sys
for name in ("metaworld", "mujoco", "gymnasium", "pybullet"):
    sys.modules[name] = None
from rftf_torchrl.cli import main
sys.argv = ["rftf", *sys.argv[1:]]
main()
"""


def test_the_command_needs_no_simulator(tmp_path):
    write_lerobot(tmp_path / "set", dtype="image", episodes=6, success=False)
    settings = [f"data={tmp_path}/set", f"output={tmp_path}/run", *SMALL, "value.steps=2"]
    for command in ("train-value", "value-report"):
        ended = subprocess.run(
            [sys.executable, "-c", NO_SIMULATOR, command, *settings],
            capture_output=True,
            encoding="utf-8",
        )
        assert ended.returncode == 0, ended.stderr
        assert "is read as lerobot (data.kind)" in ended.stdout
    assert (tmp_path / "run" / "value_report" / "report.md").is_file()


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("quickstart", ["env.image_size=null"], "data.image_size=64: the value model learns from"),
        ("quickstart", ["demos.path={here}/nothing"], "there are no demonstrations in {here}/noth"),
        ("train_bc", ["data.path=null", "demos.path={here}/frames"], "{here}/frames holds the "),
    ],
)
def test_what_outside_data_can_not_do_is_refused_first(
    configure, tmp_path, recipe, settings, message
):
    from rftf_torchrl.recipes import quickstart, train_bc

    run = {"quickstart": quickstart.quickstart, "train_bc": train_bc.clone}[recipe]
    videos = str(write_videos(tmp_path / "videos"))
    import_videos(DataConfig(path=videos, kind="videos"), tmp_path / "frames")
    given = [each.format(here=tmp_path) for each in settings]
    paths = ["reward=rftf", f"data.path={videos}", *given, f"output={tmp_path}/run"]
    arguments = [PeakMemory()] if recipe == "quickstart" else []
    refused = (ConfigError, FileNotFoundError)
    with pytest.raises(refused, match=f"^{re.escape(message.format(here=tmp_path))}"):
        run(configure(*paths), *arguments)
    assert not (tmp_path / "run" / "demos").exists()
    assert not (tmp_path / "nothing").exists()


def test_cloning_reads_no_such_data(videos, tmp_path, rftf, capsys):
    with pytest.raises(SystemExit):
        rftf("train-bc", f"data={videos}", f"output={tmp_path}")
    assert f"data={videos}: such data are for the value model" in capsys.readouterr().err
