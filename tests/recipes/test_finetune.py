"""Fine-tuning with tiny settings, and a resumed run equal to one that never stopped."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tensordict import TensorDict
from tiny import RECIPES, TINY

from rftf_torchrl import (
    ConfigError,
    EpisodeCollector,
    PeakMemory,
    TemporalValueModel,
    keys,
    read_metrics,
    write_json,
)
from rftf_torchrl.values.calibration import ValueCalibration

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]


def weights(result):
    return load_file(result["policy"])


def going_on(cloned, **value):
    """A run in a folder of its own, from what the cloned one has made."""
    made = cloned.folder
    return replace(
        cloned,
        demos=replace(cloned.demos, path=str(made.demonstrations)),
        policy=replace(cloned.policy, path=str(made.policy)),
        value=replace(cloned.value, path=str(made.value_model), **value),
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["reward=fading"],
        ["reward=rftf"],
        ["reward=sparse"],
        ["reward=rftf", "critic=temporal"],
        ["critic=own_critic:linear"],
        ["balance=none", "reward=keep", "ppo.kl_coeff=0"],
        ["reward=peak"],
    ],
    ids=" ".join,
)
def test_finetune_changes_the_policy(cloned, configure, tmp_path, overrides):
    from rftf_torchrl.recipes.finetune import finetune

    config = configure(
        *TINY,
        *overrides,
        f"output={tmp_path}",
        f"demos.path={cloned.output}/demos",
        f"policy.path={cloned.output}/bc/policy.safetensors",
        f"value.path={cloned.output}/value/value.safetensors",
    )
    result = finetune(config)
    before = load_file(f"{cloned.output}/bc/policy.safetensors")
    after = weights(result)
    assert result["env_steps"] > 0
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())


@pytest.mark.parametrize(
    "overrides",
    [
        ["value.kind=own_value:Linear"],
        ["value.kind=own_value:Sum", "reward=rftf"],
        [
            "value.kind=score",
            "reward=rftf",
            "+value.options={model: own_value:hand_height, inputs: {hand: [observation, state]}}",
            "reward.form=own_reward:late",
            "+reward.options.cost=0.5",
        ],
    ],
    ids=lambda words: words[0],
)
def test_a_value_model_and_a_form_of_ones_own(cloned, configure, tmp_path, monkeypatch, overrides):
    from rftf_torchrl.configs.artefacts import load_value_model
    from rftf_torchrl.recipes.finetune import finetune
    from rftf_torchrl.recipes.train_value import train_value

    monkeypatch.syspath_prepend(RECIPES.parent / "tests" / "rewards")
    config = configure(
        *TINY,
        *overrides,
        f"output={tmp_path}",
        f"demos.path={cloned.output}/demos",
        f"policy.path={cloned.output}/bc/policy.safetensors",
        "value.shuffle_time=true",
    )
    file, _ = train_value(config)
    assert file.is_file() == (overrides[0] == "value.kind=own_value:Linear")
    report = json.loads((tmp_path / "value" / "report.json").read_text(encoding="utf-8"))
    assert 0 <= report["pairwise_accuracy"] <= 1
    state = torch.randn(3, load_value_model(config).network.in_features if file.is_file() else 39)
    data = load_value_model(config)(TensorDict({"observation": {"state": state}}, [3]))
    assert data["temporal_value"].shape == (3, 1)
    assert finetune(config)["env_steps"] > 0


def test_a_value_model_that_is_not_trained_can_not_go_on_learning(configure, tmp_path):
    from rftf_torchrl import ConfigError
    from rftf_torchrl.recipes.finetune import finetune

    scores = "+value.options={model: own_value:hand_height, inputs: {hand: [observation, state]}}"
    config = configure(*TINY, "value.kind=score", scores, "reward=fading", f"output={tmp_path}")
    message = (
        "value.refresh_steps=20: a value model of value.kind=score is used as it is and does not "
        "go on learning; or choose reward=rftf, or another that does not refresh it"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        finetune(config)
    config = configure(*TINY, "reward=fading", f"output={tmp_path}")
    message = (
        "value.refresh_steps=20: it goes on learning from demonstrations in the simulator, so "
        "leave out data; or choose reward=rftf, or another that does not refresh it"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        finetune(replace(config, data=replace(config.data, path="videos")))


def test_a_fine_tuning_that_refreshes_needs_demonstrations(cloned, configure, tmp_path):
    from rftf_torchrl.recipes.finetune import finetune

    parts = [f"policy.path={cloned.output}/bc/policy.safetensors"]
    parts += [f"value.path={cloned.output}/value/value.safetensors", f"output={tmp_path}/new"]
    with pytest.raises(FileNotFoundError, match=r"^there are no demonstrations in .*/new/demos: "):
        finetune(configure(*TINY, *parts, "reward=fading"))


def test_a_default_run_is_paid_by_how_often_its_tasks_fail(cloned, configure, tmp_path):
    from rftf_torchrl.configs.episodes import episode_collector
    from rftf_torchrl.configs.policies import acting_policy
    from rftf_torchrl.recipes.finetune import add_advantages, make_learner, training_episodes

    config = replace(going_on(cloned), output=str(tmp_path))
    assert config.reward == configure("reward=fading").reward
    assert (config.reward.form, config.reward.dense_weight, config.reward.fade) == (
        "peak",
        0.5,
        True,
    )
    with episode_collector(
        config, "train", *acting_policy(config, config.folder.policy)
    ) as collector:
        data = collector.collect(training_episodes(config, 0), seed=0).to("cpu")
    first = data[keys.TASK_ID] == data[keys.TASK_ID][0]
    won = first & (data[keys.TRAJECTORY] == data[keys.TRAJECTORY][0])[:, None]
    ended = data["next", "done"] & won
    data["next", keys.SUCCESS] = data["next", "terminated"] = ended
    data = add_advantages(config, make_learner(config, torch.device("cpu")), data)
    share = torch.where(first, 0.5, 1.0)  # one of two episodes of the first task succeeds
    dense = data["next", keys.DENSE_REWARD]
    assert dense.any()
    torch.testing.assert_close(data["next", "reward"], ended.float() + 0.5 * share * dense)


def test_time_outs_go_on_or_end(cloned, configure, tmp_path):

    from rftf_torchrl.configs.episodes import episode_collector
    from rftf_torchrl.configs.policies import acting_policy
    from rftf_torchrl.recipes.finetune import add_advantages, make_learner, training_episodes

    parts = [f"policy.path={cloned.output}/bc/policy.safetensors"]
    parts += [f"value.path={cloned.output}/value/value.safetensors", f"output={tmp_path}"]
    config = configure(*TINY, *parts, "reward=keep")
    with episode_collector(
        config, "train", *acting_policy(config, config.folder.policy)
    ) as collector:
        played = collector.collect(training_episodes(config, 0), seed=0)
    assert not played["next", "terminated"].any(), "six decisions are too few to succeed"

    cpu = torch.device("cpu")
    for go_on in (True, False):
        arm = replace(config, ppo=replace(config.ppo, bootstrap_timeouts=go_on))
        torch.manual_seed(0)
        data = add_advantages(arm, make_learner(arm, cpu), played.to(cpu))
        last = data["next", "done"]
        reward, expected = data["next", "reward"][last], data["next", "state_value"][last]
        goes_on = config.ppo.gamma * expected if go_on else 0
        torch.testing.assert_close(data["value_target"][last], reward + goes_on)
        assert expected.abs().min() > 0
        assert ("time_left" in data) is not go_on
    assert (data["next", "terminated"] == data["next", "done"]).all()

    arm = replace(arm, reward=replace(arm.reward, options={"terminal": "zero"}))
    data = add_advantages(arm, make_learner(arm, cpu), played.to(cpu))
    torch.testing.assert_close(data["next", "reward"][last], -data["temporal_value"][last])


def test_a_value_model_without_calibration_is_refused(cloned, configure, tmp_path):
    from rftf_torchrl.configs.learner import make_learner

    model = TemporalValueModel.load(f"{cloned.output}/value/value.safetensors")
    model.calibration = ValueCalibration()
    file = tmp_path / "raw.safetensors"
    model.save(file)
    parts = [f"policy.path={cloned.output}/bc/policy.safetensors", f"value.path={file}"]
    message = (
        f"{file} is not calibrated, and reward.form=peak reads 0 as the start and 1 as the goal: "
        "call model.calibrate(...) before it is saved, as train-value does"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make_learner(
            configure(*TINY, *parts, "reward=peak", f"output={tmp_path}"), torch.device("cpu")
        )


@pytest.mark.parametrize(
    ("stop", "refreshed", "overlap"),
    [(0, 0, False), (1, 0, False), (2, 0, False), (0, 3, False), (0, 3, True)],
)
def test_resume_is_bitwise(cloned, tmp_path, monkeypatch, stop, refreshed, overlap):
    from rftf_torchrl.recipes import finetune as recipe

    if overlap:
        cloned = replace(
            cloned,
            ppo=replace(cloned.ppo, overlap=True),
            collector=replace(cloned.collector, workers=1),
        )
    run = going_on(cloned, refresh_steps=refreshed, calibration="global")
    whole = recipe.finetune(replace(run, output=str(tmp_path / "whole")))
    update = recipe.update

    def interrupted(config, loss_module, optimizer, data, iteration, **kwargs):
        if iteration == stop + 1:
            raise KeyboardInterrupt
        return update(config, loss_module, optimizer, data, iteration, **kwargs)

    monkeypatch.setattr(recipe, "update", interrupted)
    broken = replace(run, output=str(tmp_path / "broken"))
    if stop < 2:
        with pytest.raises(KeyboardInterrupt):
            recipe.finetune(broken)
        monkeypatch.setattr(recipe, "update", update)
        resumed = recipe.finetune(replace(broken, resume=True))
    else:
        resumed = recipe.finetune(broken)
    expected, found = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed["env_steps"] == whole["env_steps"]
    ends = [tmp_path / name / "rftf" / "value.safetensors" for name in ("whole", "broken")]
    assert [end.is_file() for end in ends] == [refreshed > 0] * 2
    if refreshed:
        first, second = map(load_file, ends)
        before = load_file(run.value.path)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not all(torch.equal(first[name], before[name]) for name in first)
        made_by = [TemporalValueModel.load(file).made_by for file in (run.value.path, ends[0])]
        assert [made["value.calibration"] for made in made_by] == ["instruction"] * 2


def test_the_starting_policy_may_go_while_it_is_fine_tuned(cloned, tmp_path):
    """And the metrics before a resume that has nothing left to play."""
    from rftf_torchrl.recipes.finetune import finetune

    start, run = tmp_path / "start.safetensors", going_on(cloned)
    run = replace(
        run,
        policy=replace(run.policy, path=str(shutil.copy(cloned.folder.policy, start))),
        ppo=replace(run.ppo, checkpoint_every=1),
        output=str(tmp_path / "run"),
    )
    ended = finetune(run, on_iteration=lambda *_: start.unlink(missing_ok=True))
    shutil.copy(cloned.folder.policy, start)
    run.tuned.metrics.unlink()
    assert finetune(replace(run, resume=True)) == ended


def test_a_critic_that_trains_the_policy_is_refused(cloned):
    from rftf_torchrl.configs.learner import make_learner

    run = replace(going_on(cloned), critic="own_critic:sharing")
    message = "^critic=own_critic:sharing trains parameters of the policy, which "
    with pytest.raises(ConfigError, match=message):
        make_learner(run, torch.device("cpu"))


def test_a_quick_start_from_given_files_makes_none(cloned, tmp_path, monkeypatch):
    from rftf_torchrl.recipes import quickstart

    def refused(*_):
        raise AssertionError("what is given is not made again")

    monkeypatch.setattr(quickstart, "clone", refused)
    monkeypatch.setattr(quickstart, "train_value", refused)
    with PeakMemory() as memory:
        results = quickstart.quickstart(replace(going_on(cloned), output=str(tmp_path)), memory)
    assert results["value_model"] == {"simulator_steps": 0}
    assert (tmp_path / "report.md").is_file()
    other = replace(going_on(cloned), output=str(tmp_path / "other"), baseline="sparse")
    quickstart.entitled(other)
    checkpoints = tmp_path / "other" / "sparse" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "checkpoint-000000000001.torchrl").touch()
    with pytest.raises(FileExistsError, match="sparse/checkpoints holds the checkpoints of an"):
        quickstart.entitled(other)


def test_a_run_that_never_began_leaves_no_settings_to_keep_to(cloned, tmp_path):
    from rftf_torchrl.configs.learner import refuse_used_folder

    run = replace(going_on(cloned), output=str(tmp_path), resume=True)
    run.tuned.root.mkdir(parents=True)
    write_json(run.tuned.settings, {"seed": 7})
    refuse_used_folder(run)
    assert not run.tuned.checkpoints.exists()


def test_a_crash_among_groups_leaves_the_others(cloned, configure, tmp_path, monkeypatch):
    from rftf_torchrl.recipes.finetune import finetune

    collect = EpisodeCollector.collect

    def one_crashed(self, *arguments, **how):
        data = collect(self, *arguments, **how)
        return data[data[keys.TRAJECTORY] != 0]

    monkeypatch.setattr(EpisodeCollector, "collect", one_crashed)
    settings = ["reward=sparse", "critic=group", "ppo.group_size=2", "ppo.episodes_per_task=4"]
    parts = [f"policy.path={cloned.folder.policy}", f"output={tmp_path}"]
    ended = finetune(configure(*TINY, *settings, *parts))
    assert ended["env_steps"] > 0
    rows = read_metrics(tmp_path / "sparse" / "metrics.csv", ended=True)
    assert len(rows) == 2


def test_an_earlier_runs_checkpoints_are_not_mixed_with_a_new_runs(cloned, tmp_path):
    from rftf_torchrl.recipes.finetune import finetune

    (tmp_path / "rftf" / "checkpoints").mkdir(parents=True)
    (tmp_path / "rftf" / "checkpoints" / "checkpoint-000000000001.torchrl").touch()
    expected = (
        f"{tmp_path}/rftf/checkpoints holds the checkpoints of an earlier run: continue it with "
        "resume=true, or start afresh with another output=..."
    )
    with pytest.raises(FileExistsError, match=f"^{re.escape(expected)}$"):
        finetune(replace(going_on(cloned), output=str(tmp_path)))


def test_a_failing_update_changes_no_file(cloned, tmp_path, monkeypatch):
    from rftf_torchrl.recipes import finetune as recipe

    def poisoned(config, loss_module, optimizer, data, *args, **kwargs):
        data["advantage"][0] = float("nan")
        return update(config, loss_module, optimizer, data, *args, **kwargs)

    update = recipe.update
    monkeypatch.setattr(recipe, "update", poisoned)
    ppo = replace(cloned.ppo, critic_warmup=0)
    config = replace(going_on(cloned), output=str(tmp_path), ppo=ppo)
    with pytest.raises(FloatingPointError, match="loss_objective"):
        recipe.finetune(config)
    assert not (tmp_path / "rftf" / "policy.safetensors").exists()


def test_workers_with_older_weights_stop_the_run_before_a_step(cloned, tmp_path, monkeypatch):
    from rftf_torchrl import EpisodeCollector, read_metrics
    from rftf_torchrl.errors import UserError
    from rftf_torchrl.recipes.finetune import finetune

    def config(name, **options):
        return replace(
            going_on(cloned),
            output=str(tmp_path / name),
            ppo=replace(cloned.ppo, critic_warmup=0, learning_rate=1e-2),
            **options,
        )

    whole = weights(finetune(config("whole")))
    errors = [row["ratio_error"] for row in read_metrics(config("whole").tuned.metrics)]
    assert len(errors) == 2
    assert max(map(float, errors)) < 1e-5

    with monkeypatch.context() as patched:
        patched.setattr(EpisodeCollector, "update_policy_weights_", lambda self: None)
        with pytest.raises(UserError, match="workers that still hold older ones"):
            finetune(config("stale"))
    assert len(read_metrics(config("stale").tuned.metrics)) == 1
    gone_on = weights(finetune(config("stale", resume=True)))
    assert all(torch.equal(whole[name], gone_on[name]) for name in whole)


def test_some_of_the_tasks_are_tuned(configure, tmp_path):
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.finetune import finetune, training_episodes
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import rollout_episodes, train_value

    config = configure(
        *TINY, "ppo.tasks=[window-close]", "value=ranking_rollouts", f"output={tmp_path}"
    )
    episodes = training_episodes(config, 0) + rollout_episodes(config)
    assert {episode.task for episode in episodes} == {"window-close"}
    collect(config)
    clone(config)
    train_value(config)
    finetune(config)
    header = (
        (tmp_path / "rftf" / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    )
    assert "success/window-close" in header
    assert "success/window-open" not in header


def test_a_frozen_tower_does_not_run_in_the_update(configure, tmp_path, monkeypatch):
    from frozen_policy import Tower

    from rftf_torchrl.recipes import finetune as recipe
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_bc import clone

    config = configure(
        *TINY, "reward=sparse", "policy.kind=frozen_policy:FrozenSpec", f"output={tmp_path}"
    )
    collect(config)
    clone(config)
    update, ran = recipe.update, []

    def watched(*args, **kwargs):
        Tower.rows.clear()
        metrics = update(*args, **kwargs)
        ran.append(list(Tower.rows))
        return metrics

    monkeypatch.setattr(recipe, "update", watched)
    recipe.finetune(config)
    assert ran == [[]] * len(ran)
    assert len(ran) == config.ppo.iterations + config.ppo.critic_warmup
