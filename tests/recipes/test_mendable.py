"""What a user can mend: every recipe's whole message where something is missing or wrong."""

import ctypes.util
import importlib.util
import re
import sys

import pytest
from tiny import TINY

from rftf_torchrl import (
    EncoderConfig,
    ObservationSizes,
    PolicySpec,
    build_value_model,
    save_policy,
)
from rftf_torchrl.configs.record import environment
from rftf_torchrl.recipes import (
    calvin_seeds,
    collect_demos,
    evaluate,
    finetune,
    train_bc,
    train_value,
    update_report,
    value_report,
)

STAGES = {
    "collect_demos": collect_demos.collect,
    "train_bc": train_bc.clone,
    "train_value": train_value.train_value,
    "finetune": finetune.finetune,
    "evaluate": evaluate.evaluate,
    "value_report": value_report.report_value,
    "update_report": update_report.report_update,
}
NO_DEMOS = (
    "there are no demonstrations in {run}/demos: record them first by rftf collect-demos "
    "output={run} with the same settings, or give demos.path=<folder>"
)
NO_POLICY = (
    "there is no policy at {run}/bc/policy.safetensors: clone one first by rftf train-bc "
    "output={run} with the same settings, or give policy.path=<file>"
)
NO_VALUE = (
    "there is no value model at {run}/value/value.safetensors: train one first by rftf "
    "train-value output={run} with the same settings, or give value.path=<file>"
)
WRONG_DEMOS = (
    "{wrong} holds no demonstrations, as it has no demonstrations.json: give their folder by "
    "demos.path=<folder>, or another output=<folder> in which to record some"
)
OTHER_POLICY = (
    "{made}/policy.safetensors was made with other settings:\n"
    "  - env.chunk_size=2, and now 5\n"
    "To go on, train it in this environment, or give another file by policy.path."
)
OTHER_VALUE = (
    "{made}/value.safetensors was made with other settings:\n"
    "  - simulator steps per action=8, and now 4\n"
    "To go on, train it in this environment, or give another file by value.path."
)
A_FOLDER = "{made} is a folder: give the file of a "
POLICY_FOLDER = A_FOLDER + "policy by policy.path=<file>"
VALUE_FOLDER = A_FOLDER + "value model by value.path=<file>"
TEXT = (
    "{made}/note.txt is not a complete safetensors file: Error while deserializing header: "
    "header too small"
)
POLICY, VALUE = "policy.path={made}/policy.safetensors", "value.path={made}/value.safetensors"
CASES = [
    ("train_bc", [], NO_DEMOS),
    ("train_value", [], NO_DEMOS),
    ("value_report", [], NO_DEMOS),
    ("finetune", [], NO_POLICY),
    ("evaluate", [], NO_POLICY),
    ("update_report", [], NO_POLICY),
    ("train_value", ["value=ranking_rollouts", "demos.path={demos}"], NO_POLICY),
    ("value_report", ["demos.path={demos}", VALUE], NO_POLICY),
    ("finetune", [POLICY], NO_VALUE),
    ("update_report", [POLICY], NO_VALUE),
    ("value_report", ["demos.path={demos}", POLICY], NO_VALUE),
    ("collect_demos", ["demos.path={made}"], WRONG_DEMOS.replace("{wrong}", "{made}")),
    ("train_bc", ["demos.path={made}"], WRONG_DEMOS.replace("{wrong}", "{made}")),
    ("train_bc", ["demos.path={made}/note.txt"], WRONG_DEMOS.replace("{wrong}", "{made}/note.txt")),
    ("finetune", ["policy.path={made}"], POLICY_FOLDER),
    ("finetune", [POLICY, "value.path={made}"], VALUE_FOLDER),
    ("evaluate", [POLICY, "value.path={made}"], VALUE_FOLDER),
    ("finetune", ["policy.path={made}/note.txt"], TEXT),
    ("evaluate", [POLICY, "value.path={made}/note.txt"], TEXT),
    *(
        (stage, [POLICY, VALUE, "demos.path={demos}", "env.chunk_size=5"], OTHER_POLICY)
        for stage in ("finetune", "evaluate", "value_report", "update_report")
    ),
    *(
        (stage, [POLICY, VALUE, "demos.path={demos}", "env.options.action_repeat=4"], OTHER_VALUE)
        for stage in ("finetune", "evaluate", "value_report", "update_report")
    ),
    (
        "train_bc",
        ["output={made}/note.txt"],
        "Cannot write to the output folder {made}/note.txt: File exists. Choose a folder that you "
        "may write to.",
    ),
]


OF_ANOTHER_KIND = [
    (
        "evaluate",
        ["policy.path={made}/value.safetensors"],
        "{made}/value.safetensors is not a policy: expected format 'rftf_torchrl.policy.2', got "
        "'rftf_torchrl.TemporalValueModel.1'",
    ),
    (
        "finetune",
        [POLICY, "value.path={made}/policy.safetensors", "demos.path={demos}"],
        "{made}/policy.safetensors is not a value model: expected format "
        "'rftf_torchrl.TemporalValueModel.1', got 'rftf_torchrl.policy.2'.",
    ),
]


@pytest.fixture(scope="module")
def made(configure, tmp_path_factory):
    """A folder with a policy and a value model of the tiny environment, and a text."""
    folder = tmp_path_factory.mktemp("made")
    config = configure(*TINY, f"output={folder}")
    settings = environment(config)
    spec = PolicySpec(EncoderConfig(image_size=None, state_dim=39), 2, 4)
    policy_settings = {k: v for k, v in settings.items() if k != "simulator steps per action"}
    save_policy(spec.build(), spec, folder / "policy.safetensors", made_by=policy_settings)
    model = build_value_model("small", {}, ObservationSizes(None, 39))
    value_settings = {k: v for k, v in settings.items() if k != "env.chunk_size"}
    model.save(folder / "value.safetensors", made_by=value_settings)
    (folder / "note.txt").write_text("text", encoding="utf-8")
    return folder


@pytest.fixture
def demos(tmp_path):
    """A folder that looks like demonstrations from outside."""
    (tmp_path / "demos").mkdir()
    (tmp_path / "demos" / "demonstrations.json").touch()
    return tmp_path / "demos"


@pytest.fixture
def refused(configure, made, demos, tmp_path):
    """Run a stage and compare its error with the whole message."""

    def run(stage, settings, message):
        places = {"run": tmp_path / "run", "made": made, "demos": demos}
        settings = [setting.format(**places) for setting in ["output={run}", *settings]]
        config = configure(*TINY, *settings)
        with pytest.raises((ValueError, OSError), match=f"^{re.escape(message.format(**places))}$"):
            STAGES[stage](config)

    return run


@pytest.mark.parametrize(("stage", "settings", "message"), CASES)
def test_what_is_missing_or_wrong(refused, tmp_path, stage, settings, message):
    refused(stage, settings, message)
    written = {file.suffix for file in (tmp_path / "run").rglob("*")}
    if stage != "collect_demos":
        assert written <= {".lock"}, "a run that is refused writes nothing"


@pytest.mark.parametrize(("stage", "settings", "message"), OF_ANOTHER_KIND)
def test_a_file_of_another_kind(refused, stage, settings, message):
    refused(stage, settings, message)


def test_a_run_of_calvin_that_has_not_ended(tmp_path):
    (tmp_path / "quickstart.yaml").touch()
    message = (
        f"there is no {tmp_path}/chains_cloned.json: run it to its end first by rftf calvin "
        f"baseline=sparse resume=true output={tmp_path}, with the settings that it was begun with"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        calvin_seeds.pool([tmp_path], tmp_path / "out")


def test_a_simulator_that_is_not_installed(configure, monkeypatch, tmp_path):
    find_spec = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, "metaworld", None)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "calvin_env" else find_spec(name, *a),
    )
    message = "Meta-World needs the package metaworld: pip install 'rftf-torchrl[metaworld]'"
    with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(message)}$"):
        collect_demos.collect(configure(*TINY, f"output={tmp_path / 'metaworld'}"))

    monkeypatch.setattr("rftf_torchrl.calvin.install._python", lambda: "")
    message = (
        "CALVIN's simulator is not installed. calvin_env is not on PyPI. Clone it and install the "
        "clone in place:\n"
        "    git clone https://github.com/mees/calvin_env\n"
        "    pip install -e calvin_env"
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        collect_demos.collect(configure("env=calvin_state", f"output={tmp_path / 'calvin'}"))


@pytest.mark.metaworld
def test_no_opengl(configure, monkeypatch, tmp_path):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    message = (
        "no off-screen OpenGL backend: neither libEGL nor libOSMesa was found. On Debian or "
        "Ubuntu: 'apt-get install libegl1 libgl1 libgl1-mesa-dri' (EGL) or 'apt-get install "
        "libosmesa6' (OSMesa, with MUJOCO_GL=osmesa); on a GPU server the driver's libEGL is "
        "enough. To work without images, from the state, use image_size=None, in the recipes "
        "env.image_size=null."
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        collect_demos.collect(configure(*TINY, "env.image_size=64", f"output={tmp_path}"))
