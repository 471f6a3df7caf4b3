"""A run that is refused changes nothing, and what it goes on from was made with its settings."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from tiny import TINY

from rftf_torchrl import ConfigError, FolderInUseError, load_policy, own_folder, read_made_by
from rftf_torchrl.configs.learner import refuse_used_folder
from rftf_torchrl.digests import write_record
from rftf_torchrl.recipes.collect_demos import collect
from rftf_torchrl.recipes.finetune import finetune
from rftf_torchrl.recipes.train_bc import clone

pytestmark = pytest.mark.slow
SPARSE = ["reward=sparse", "ppo.checkpoint_every=1", "logger=none"]


@pytest.fixture(scope="module")
def run(configure, tmp_path_factory):
    """A cloned policy, fine-tuned by plain PPO."""
    config = configure(*TINY, *SPARSE, f"output={tmp_path_factory.mktemp('run')}")
    collect(config)
    clone(config)
    finetune(config)
    return config


def files(config):
    """Every file of a run's folder and its bytes."""
    root = config.folder.root
    return {
        file.relative_to(root): file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file() and not file.name.endswith(".lock")
    }


def test_a_resumed_run_keeps_its_settings(run):
    before = files(run)
    other = replace(run, resume=True, seed=5, ppo=replace(run.ppo, gamma=0.5, iterations=9))
    message = (
        f"{run.tuned.root} was made with other settings:\n"
        f"  - ppo.gamma={run.ppo.gamma}, and now 0.5\n"
        "  - seed=0, and now 5\n"
        "To go on, use another output folder, or give the earlier settings."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        finetune(other)
    assert files(run) == before


def test_a_run_that_has_ended_keeps_its_settings_without_checkpoints(run, tmp_path):
    aside = shutil.move(run.tuned.checkpoints, tmp_path / "aside")
    write_record(run.tuned.end, {"asked": {}})
    try:
        other = replace(run, resume=True, ppo=replace(run.ppo, gamma=0.5))
        with pytest.raises(ConfigError, match=r"  - ppo\.gamma=.*, and now 0\.5\n"):
            refuse_used_folder(other)
        refuse_used_folder(replace(run, resume=True))
    finally:
        run.tuned.end.unlink()
        shutil.move(aside, run.tuned.checkpoints)


def test_a_resumed_run_does_not_end_before_it_stopped(run):
    before = files(run)
    fewer = replace(run, resume=True, ppo=replace(run.ppo, iterations=run.ppo.iterations - 1))
    message = r"checkpoint-0+3\.torchrl is after iteration 3, .*: give ppo\.iterations=2 or more"
    with pytest.raises(ConfigError, match=message):
        finetune(fewer)
    assert files(run) == before


def test_a_folder_that_is_being_written_is_left_alone(run):
    before = files(run)
    with own_folder(run.output, "sparse"):
        lock = (run.folder.root / ".sparse.json").read_text(encoding="utf-8")
        assert json.loads(lock)["process"]
    assert files(run) == before


def test_a_run_does_not_go_on_where_rows_of_its_metrics_are_missing(run):
    whole = run.tuned.metrics.read_bytes()
    run.tuned.metrics.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    message = f"{run.tuned.metrics} breaks off at step 0, expected rows up to step "
    try:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            finetune(replace(run, resume=True))
    finally:
        run.tuned.metrics.write_bytes(whole)


def test_another_process_is_refused_before_it_writes(run, monkeypatch):
    from filelock import Timeout

    from rftf_torchrl.training import owner

    class Taken:
        def __init__(self, *_, **__): ...

        def acquire(self):
            raise Timeout("taken")

    monkeypatch.setattr(owner, "FileLock", Taken)
    before = files(run)
    with pytest.raises(FolderInUseError, match=r"the stage 'sparse' of .* is being written"):
        finetune(replace(run, resume=True))
    assert files(run) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk_size": 3}, "env.chunk_size=2, and now 3"),
        ({"options": {"action_repeat": 4}}, "simulator steps per action=8, and now 4"),
    ],
)
def test_a_policy_of_another_environment_is_refused(run, change, message, tmp_path):
    other = replace(run, output=str(tmp_path), env=replace(run.env, **change))
    other = replace(other, policy=replace(run.policy, path=str(run.folder.policy)))
    with pytest.raises(ConfigError, match=re.escape(message)):
        finetune(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"action_repeat": 4}}, "simulator steps per action=8, and now 4"),
        ({"image_size": 64}, "env.image_size=None, and now 64"),
        ({"tasks": ["window-open", "drawer-open"]}, "has no demonstrations of drawer-open"),
    ],
)
def test_demonstrations_of_another_environment_are_refused(run, change, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        clone(replace(run, env=replace(run.env, **change)))


def test_files_carry_the_settings_that_made_them(run):
    made = read_made_by(run.folder.policy)
    assert made["seed"] == 0
    assert made["env.chunk_size"] == run.env.chunk_size
    assert made["cloning.steps"] == run.cloning.steps
    assert read_made_by(run.tuned.policy)["ppo.gamma"] == run.ppo.gamma


def test_a_kill_between_the_last_checkpoint_and_the_policy_loses_nothing(run):
    whole = load_policy(run.tuned.policy)[0].state_dict()
    run.tuned.policy.unlink()
    finetune(replace(run, resume=True))
    again = load_policy(run.tuned.policy)[0].state_dict()
    assert all(again[name].equal(value) for name, value in whole.items())


def test_data_from_outside_hide_no_other_environment(run, tmp_path):
    other = replace(run.env, chunk_size=run.env.chunk_size + 3)
    data = replace(run.data, path=str(tmp_path), image_size=9)
    with pytest.raises(ConfigError, match=r"env\.chunk_size=2, and now 5"):
        finetune(
            replace(
                run,
                output=str(tmp_path / "new"),
                env=other,
                data=data,
                policy=replace(run.policy, path=str(run.folder.policy)),
            )
        )


def test_a_policy_keeps_the_options_that_it_was_cloned_with(run, tmp_path, caplog):
    options = {**run.policy.options, "head": "tokens"}
    policy = replace(run.policy, path=str(run.folder.policy), options=options)
    one = replace(run, output=str(tmp_path), policy=policy)
    finetune(one)
    assert load_policy(one.tuned.policy)[1].head == "gaussian"
    assert "policy.options.head" not in read_made_by(one.tuned.policy)
    assert "was not cloned with policy.options.head=tokens, and stays so" in caplog.text
