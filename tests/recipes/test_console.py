"""What a user can mend is one message on the console, and exit code 2."""

from dataclasses import fields, replace
from importlib.metadata import version

import pytest

from rftf_torchrl import RunConfig, StudyConfig
from rftf_torchrl.cli import commands
from rftf_torchrl.configs import describe
from rftf_torchrl.configs.describe import help_lines, kinds
from rftf_torchrl.configs.typos import setting_names
from rftf_torchrl.envs.simulator import SIMULATORS


@pytest.fixture
def ended(rftf, capsys):
    """From a command to its exit code and standard error, after the line that it begins with."""

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            rftf(*arguments)
        begin = f"rftf {arguments[0]}: loading PyTorch, which takes some seconds\n"
        return exit.value.code, capsys.readouterr().err.removeprefix(begin)

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["ppo.iteratons=3", "+typo=3"],
            "finetune: the command can't be run:\n"
            "  - ppo.iteratons: there is no such setting, did you mean 'ppo.iterations'?\n"
            "  - typo: there is no such setting; --help lists all\n"
            "(-v shows where it was raised.)\n",
        ),
        (
            ["env.tasks=[drawer-open]", "ppo.clip_epsilon=-1", "device=cudda"],
            "finetune: the configuration can't be run:\n"
            "  - ppo.clip_epsilon=-1.0: must be above 0\n"
            "  - device=cudda: Device 'cudda' is not known: use 'auto', 'cpu', 'cuda', "
            "'cuda:<number>' or 'mps'.\n"
            "(-v shows where it was raised.)\n",
        ),
    ],
)
def test_a_wrong_command_is_one_message(ended, tmp_path, arguments, message):
    code, error = ended("finetune", *arguments, f"output={tmp_path / 'run'}")
    assert (code, error) == (2, message)
    assert not (tmp_path / "run").exists(), "nothing is written before the settings are right"


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("ppo.iterations=x", "'x' of type 'str' could not be converted to Integer"),
        ("env.tasks=[a=b]", "  - env.tasks=[a=b]: Hydra can't read it ("),
    ],
)
def test_what_hydra_refuses_is_said_with_the_reason(ended, argument, why):
    code, error = ended("finetune", argument)
    assert code == 2
    assert why in error


def test_an_unknown_command_is_told_the_nearest(ended):
    code, error = ended("finetne")
    assert code == 2
    assert error.startswith("rftf: there is no command 'finetne'; did you mean 'finetune'?\n")


def test_help_lists_every_recipe_with_a_line(rftf, capsys):
    rftf("--help")
    shown = capsys.readouterr().out
    assert {"quickstart", "collect-demos", "train-bc", "train-value", "finetune"} <= set(commands())
    for name, line in commands().items():
        assert f"  {name} " in shown
        assert line in shown


def test_the_version(rftf, capsys):
    rftf("--version")
    assert capsys.readouterr().out == f"{version('rftf-torchrl')}\n"


def test_the_names_of_all_settings_are_known():
    names, open_names = setting_names(RunConfig)
    assert {"ppo.gamma", "env.tasks", "seed", "policy.options"} <= set(names)
    assert "policy.options" in open_names


def test_settings_that_moved_go_on_with_a_warning(ended, caplog, tmp_path):
    arguments = ["env.action_repeat=2", "+policy.head=flw", f"output={tmp_path / 'run'}"]
    code, error = ended("finetune", "env.tasks=[drawer-open]", *arguments)
    assert code == 2
    assert "  - policy.options.head=flw: must be 'gaussian', " in error
    assert [record.getMessage() for record in caplog.records][:2] == [
        "env.action_repeat is now env.options.action_repeat",
        "policy.head is now policy.options.head",
    ]


def test_the_help_of_a_command_has_every_setting_with_its_range(rftf, capsys):
    rftf("finetune", "--help")
    shown = capsys.readouterr().out
    assert shown.startswith("Fine-tune the cloned policy by PPO")
    assert "  ppo.gamma = 0.97  (number, at least 0, at most 1)\n      discount per" in shown
    forms = "environment|fading|keep|peak|rftf|sparse"
    assert f"  reward={forms}\n" in shown
    groups = {name.partition(".")[0] for name in setting_names(RunConfig)[0] if "." in name}
    for name in setting_names(RunConfig)[0]:
        assert f"  {name} = " in shown or name in groups
    for kind, options, note in kinds():
        assert f"\noptions of {kind}{': ' * bool(note)}{note}\n" in shown
        assert options or note == "it has no options"
        for name, *_ in options:
            assert f"  {name.strip('`')} = " in shown
    assert (
        "options of env.kind=metaworld\n"
        "  env.options.action_repeat = 3  (whole number, at least 1)\n"
        "      simulator steps for which an action is held.\n"
    ) in shown


def test_a_kind_that_cannot_be_imported_has_one_line_in_the_help(monkeypatch):
    absent = replace(SIMULATORS, names={"mine": "no_such_package.door:Mine"})
    monkeypatch.setattr(describe, "KINDS", [("env.kind", absent, absent.find)])
    assert help_lines()[-1] == (
        "options of env.kind=mine: its options can't be shown here: no simulator at "
        "no_such_package.door:Mine (No module named 'no_such_package'): make it importable, for "
        "example by its folder in PYTHONPATH."
    )


def test_the_help_of_a_study_has_its_settings(rftf, capsys):
    rftf("compare", "--help")
    shown = capsys.readouterr().out
    assert "  study=few_episodes|few_episodes_pixels|ground|libero|pixels|quick|state\n" in shown
    for field in fields(StudyConfig):
        assert f"\n  {field.name} = " in shown
    assert "options of" not in shown
