"""Every recipe end to end with tiny settings, and a resumed run equal to one that never stopped."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from _pages import check_page
from safetensors.torch import load_file
from tensordict import TensorDict
from tiny import RECIPES, TINY

from rftf_torchrl import (
    ConfigError,
    TemporalValueModel,
    keys,
    load_demonstrations,
)
from rftf_torchrl.values.calibration import ValueCalibration

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]


@pytest.fixture(scope="module")
def cloned(configure, tmp_path_factory):
    """The configuration of an output folder with demonstrations, policy and value model."""
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    config = configure(*TINY, f"output={tmp_path_factory.mktemp('run')}")
    steps = collect(config)
    assert steps > 0
    assert collect(config) == steps, "existing demonstrations are kept, and so is what they cost"
    assert clone(config).is_file()
    file, extra_steps = train_value(config)
    assert file.is_file()
    assert extra_steps == 0
    return config


def weights(result):
    return load_file(result["policy"])


def test_the_expert_takes_over_from_the_policy(cloned, tmp_path):
    """In demonstrations of Meta-World; those to judge by stay the expert's alone."""
    from rftf_torchrl.recipes.collect_demos import collect

    policy = str(cloned.folder.policy)
    led = replace(cloned.demos, takeover=policy, per_task=4, held_out_per_task=1)
    env = replace(cloned.env, horizon=2 * cloned.env.horizon)
    config = replace(cloned, output=str(tmp_path), demos=led, env=env)
    steps = collect(config)
    demos = load_demonstrations(config.folder.demonstrations)
    train = [episode.takeover for episode in demos.episodes if episode.split == "train"]
    assert 0 < sum(decisions > 0 for decisions in train) < len(train)
    assert not any(episode.takeover for episode in demos.episodes if episode.split == "test")
    alone = len(demos.frames) - len(demos.episodes)
    led_by_policy = sum(train) * config.env.chunk_size
    assert steps >= (alone + led_by_policy) * demos.action_repeat


def test_value_report_of_held_out_demonstrations(cloned):
    with open(f"{cloned.output}/value/report.json", encoding="utf-8") as file:
        report = json.load(file)
    assert 0 <= report["pairwise_accuracy"] <= 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["reward=rftf"],
        ["reward=sparse"],
        ["critic=temporal"],
        ["critic=own_critic:linear"],
        ["balance=none", "reward=keep", "ppo.kl_coeff=0"],
        ["reward=goal_zero"],
        ["reward=peak"],
        ["reward=milestones"],
        ["reward=graded"],
        ["reward=beside"],
    ],
    ids=" ".join,
)
def test_finetune_changes_the_policy(cloned, configure, tmp_path, overrides):
    from rftf_torchrl.recipes.finetune import finetune

    config = configure(
        *TINY,
        *overrides,
        f"output={tmp_path}",
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
        ["value.kind=own_value:Sum"],
        [
            "value.kind=score",
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


@pytest.mark.parametrize(("stop", "refreshed"), [(0, 0), (1, 0), (2, 0), (0, 3)])
def test_resume_is_bitwise(cloned, tmp_path, monkeypatch, stop, refreshed):
    from rftf_torchrl.recipes import finetune as recipe

    demos = f"{cloned.output}/demos" if refreshed else None
    paths = {
        "demos": replace(cloned.demos, path=demos),
        "policy": replace(cloned.policy, path=f"{cloned.output}/bc/policy.safetensors"),
        "value": replace(
            cloned.value,
            path=f"{cloned.output}/value/value.safetensors",
            refresh_steps=refreshed,
        ),
    }
    whole = recipe.finetune(replace(cloned, **paths, output=str(tmp_path / "whole")))
    update = recipe.update

    def interrupted(config, loss_module, optimizer, buffer, data, iteration, **kwargs):
        if iteration == stop + 1:
            raise KeyboardInterrupt
        return update(config, loss_module, optimizer, buffer, data, iteration, **kwargs)

    monkeypatch.setattr(recipe, "update", interrupted)
    broken = replace(cloned, **paths, output=str(tmp_path / "broken"))
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


def failure(states):
    """An episode through these states that runs out of time."""
    data = states.select("observation", "instruction", keys.TASK_ID)
    data["next"] = data.clone()
    last = torch.arange(len(data))[:, None] == len(data) - 1
    data["next", "done"] = last
    data["next", "terminated"] = data["next", keys.SUCCESS] = torch.zeros_like(last)
    data["collector", "traj_ids"] = torch.zeros(len(data), dtype=torch.int64)
    return data


def test_a_refreshed_value_model_learns_from_the_episodes_that_it_pays(cloned):
    from rftf_torchrl.configs.artefacts import load_value_model
    from rftf_torchrl.recipes.refresh_value import ValueRefresh

    config = replace(cloned, value=replace(cloned.value, refresh_steps=60, learning_rate=3e-3))
    paying = load_value_model(config).requires_grad_(False)
    refresh = ValueRefresh(config, paying)
    start, stop = refresh.train.spans[0].tolist()
    reached = refresh.train.frames[start:stop].clone()
    reached["observation", "state"] += 1.0  # failures far from the demonstrations
    before = final_gap(paying, refresh.train.frames[stop - 1 : stop], reached)
    refresh.learn(failure(reached), iteration=0)
    after = final_gap(paying, refresh.train.frames[stop - 1 : stop], reached)
    assert after > before
    assert not any(parameter.requires_grad for parameter in paying.parameters())


def test_without_an_order_of_time_failures_are_zero_and_demonstrations_one(cloned):
    from rftf_torchrl.configs.artefacts import load_value_model
    from rftf_torchrl.recipes.refresh_value import ValueRefresh

    value = replace(cloned.value, refresh_steps=60, learning_rate=3e-3, shuffle_time=True)
    config = replace(cloned, value=value)
    paying = load_value_model(config)
    refresh = ValueRefresh(config, paying)
    reached = refresh.train.frames.clone()
    reached["observation", "state"] += 1.0
    refresh.learn(failure(reached), iteration=0)
    means = [
        paying(states.clone())["temporal_value"].mean()
        for states in (reached, refresh.train.frames)
    ]
    assert [float(mean) for mean in means] == pytest.approx([0.0, 1.0], abs=1e-3)


def final_gap(model, goal, reached):
    return float(model(goal.clone())["temporal_value"] - model(reached)["temporal_value"].max())


def test_an_earlier_runs_checkpoints_are_not_mixed_with_a_new_runs(cloned, tmp_path):
    from rftf_torchrl.recipes.finetune import finetune

    (tmp_path / "rftf" / "checkpoints").mkdir(parents=True)
    (tmp_path / "rftf" / "checkpoints" / "checkpoint-000000000001.torchrl").touch()
    expected = (
        f"{tmp_path}/rftf/checkpoints holds the checkpoints of an earlier run: continue it with "
        "resume=true, or start afresh with another output=..."
    )
    with pytest.raises(FileExistsError, match=f"^{re.escape(expected)}$"):
        finetune(
            replace(
                cloned,
                output=str(tmp_path),
                policy=replace(cloned.policy, path=str(cloned.folder.policy)),
                value=replace(cloned.value, path=str(cloned.folder.value_model)),
            )
        )


def test_a_failing_update_changes_no_file(cloned, tmp_path, monkeypatch):
    from rftf_torchrl.recipes import finetune as recipe

    def poisoned(config, loss_module, optimizer, buffer, data, *args, **kwargs):
        data["advantage"][0] = float("nan")
        return update(config, loss_module, optimizer, buffer, data, *args, **kwargs)

    update = recipe.update
    monkeypatch.setattr(recipe, "update", poisoned)
    config = replace(
        cloned,
        output=str(tmp_path),
        policy=replace(cloned.policy, path=f"{cloned.output}/bc/policy.safetensors"),
        value=replace(cloned.value, path=f"{cloned.output}/value/value.safetensors"),
        ppo=replace(cloned.ppo, critic_warmup=0),
    )
    with pytest.raises(FloatingPointError, match="loss_objective"):
        recipe.finetune(config)
    assert not (tmp_path / "rftf" / "policy.safetensors").exists()


def test_workers_with_older_weights_stop_the_run_before_a_step(cloned, tmp_path, monkeypatch):
    from rftf_torchrl import EpisodeCollector, read_metrics
    from rftf_torchrl.errors import UserError
    from rftf_torchrl.recipes.finetune import finetune

    def config(name, **options):
        return replace(
            cloned,
            output=str(tmp_path / name),
            policy=replace(cloned.policy, path=f"{cloned.output}/bc/policy.safetensors"),
            value=replace(cloned.value, path=f"{cloned.output}/value/value.safetensors"),
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


def test_what_is_not_cloned_is_left_to_the_value_model(cloned, configure, tmp_path):
    from rftf_torchrl.configs.artefacts import whole_demos
    from rftf_torchrl.recipes.train_bc import cloned_demos

    path = f"demos.path={cloned.output}/demos"
    config = configure(*TINY, path, "cloning.per_task=1", f"output={tmp_path}")
    train = whole_demos(config).select(split="train")
    chosen = cloned_demos(config).episodes
    assert len(train.episodes) == 4
    assert chosen == tuple(
        next(e for e in train.episodes if e.task_id == task.id) for task in train.tasks
    )
    assert cloned_demos(configure(*TINY, path)).episodes == train.episodes
    one = configure(*TINY, path, "cloning.tasks=[window-close]")
    (window_close,) = (task.id for task in train.tasks if task.name == "window-close")
    found = cloned_demos(one).episodes
    assert found == tuple(e for e in train.episodes if e.task_id == window_close) != ()
    assert (
        cloned_demos(
            configure(*TINY, path, "cloning.tasks=[window-close]", "cloning.per_task=1")
        ).episodes
        == found[:1]
    )
    with pytest.raises(ValueError, match=r"fewer than cloning\.per_task=3 .* of window-open, wind"):
        cloned_demos(configure(*TINY, path, "cloning.per_task=3"))


def test_failures_as_negatives(cloned, configure, tmp_path):
    from rftf_torchrl.recipes.train_value import train_value

    config = configure(
        *TINY,
        "value=ranking_failures",
        f"output={tmp_path}",
        f"demos.path={cloned.output}/demos",
        f"policy.path={cloned.output}/bc/policy.safetensors",
    )
    file, extra_steps = train_value(config)
    assert file.is_file()
    assert extra_steps > 0


def test_rollouts_of_the_cloned_policy(cloned, configure, tmp_path):
    from rftf_torchrl.recipes.train_value import train_value

    config = configure(
        *TINY,
        "value=ranking_rollouts",
        f"output={tmp_path}",
        f"demos.path={cloned.output}/demos",
        f"policy.path={cloned.output}/bc/policy.safetensors",
    )
    file, extra_steps = train_value(config)
    assert file.is_file()
    assert extra_steps > 0
    assert json.loads((tmp_path / "value" / "report.json").read_text(encoding="utf-8")).keys() >= {
        "pairwise_accuracy",
        "simulator_steps",
    }


def a_rollout(demonstrations, number, *, success):
    """An episode of the demonstrations in the shape of a rollout."""
    start, stop = demonstrations.spans[number].tolist()
    frames = demonstrations.frames[start:stop]
    rollout = TensorDict({"next": frames.select("observation", "instruction", "task_id")})
    rollout["trajectory_success"] = torch.full((stop - start, 1), success)
    return rollout.auto_batch_size_(1)


def test_successful_rollouts_are_ordered_only_where_they_are_asked_for(
    cloned, configure, tmp_path, monkeypatch
):
    from rftf_torchrl import load_demonstrations
    from rftf_torchrl.recipes import train_value as recipe

    demonstrations = load_demonstrations(f"{cloned.output}/demos")

    def trained(value, successes):
        rollouts = [a_rollout(demonstrations, k, success=s) for k, s in enumerate(successes)]
        monkeypatch.setattr(recipe, "cloned_rollouts", lambda config: (rollouts, 17))
        output = tmp_path / f"{value}{sum(successes)}"
        config = configure(
            *TINY,
            f"value={value}",
            f"output={output}",
            f"demos.path={cloned.output}/demos",
            f"policy.path={cloned.folder.policy}",
        )
        file, steps = recipe.train_value(config)
        assert steps == 17
        return load_file(file)

    def equal(first, second):
        return all(torch.equal(first[name], second[name]) for name in first)

    mixed, failed = [True, False], [False, False]
    assert not equal(trained("ranking_rollouts", mixed), trained("ranking_failures", mixed))
    assert equal(trained("ranking_rollouts", failed), trained("ranking_failures", failed))


def test_clips_of_rollouts_are_in_time_order_and_masked_where_the_rollout_is_short():
    from rftf_torchrl.recipes.value_steps import rollout_clips

    def rollout(length, success):
        time = torch.arange(length).unsqueeze(-1)
        states = TensorDict(
            {
                "observation": {"state": time.float()},
                "instruction": {"tokens": time * 0},
                "task_id": time * 0 + length,
            }
        )
        flag = torch.full((length, 1), success)
        data = TensorDict({"next": states, "trajectory_success": flag})
        return data.auto_batch_size_(1)

    clips = rollout_clips(
        [rollout(3, True), rollout(9, False)], 20, 5, torch.Generator().manual_seed(0)
    )
    assert {int(clip["task_id"][0]) for clip in clips} == {3, 9}
    for clip in clips:
        length = int(clip["task_id"][0])
        when = clip["observation", "state"].squeeze(-1)
        assert clip["trajectory_success"].tolist() == [[length == 3]] * 5
        assert clip["frame_mask"].sum() == min(length, 5)
        shown = when[clip["frame_mask"]]
        assert (shown.diff() > 0).all()
        if length == 3:
            assert when.tolist() == [0, 1, 2, 2, 2]


def test_evaluate(cloned):
    from rftf_torchrl.recipes.evaluate import evaluate

    results = evaluate(cloned)
    assert results["success"]["pooled"]["trials"] == 4
    assert results["language"]["tasks"].keys() == {"window-open", "window-close"}
    with open(f"{cloned.output}/evaluation/results.json", encoding="utf-8") as file:
        written = json.load(file)["success"]
    assert written["episodes"] == results["success"]["episodes"]


@pytest.mark.parametrize("policy", ["tokens", "arm_gripper"])
def test_other_heads(configure, tmp_path, policy):
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.finetune import finetune
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    gripper = "cloning.gripper_threshold=0"  # Meta-World's is an effort
    config = configure(*TINY, f"policy={policy}", gripper, f"output={tmp_path}")
    collect(config)
    clone(config)
    train_value(config)
    assert finetune(config)["env_steps"] > 0


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


def test_quick_start_from_pixels_as_a_command(tmp_path):
    overrides = [o for o in TINY if not o.startswith(("env.image_size", "collector.workers"))]
    command = [
        sys.executable,
        str(RECIPES / "quickstart.py"),
        *overrides,
        "collector.workers=1",
        "baseline=sparse",
        "threads=1",
        f"output={tmp_path}/out",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["success"].keys() == {"cloned", "RFTF", "sparse"}
    pictures = ("learning_curve.png", "success.png", "value_over_time_cloned.png")
    for name in ("report.md", *pictures, "value_over_time_RFTF.png"):
        assert (out / name).stat().st_size > 500
    assert len(list((out / "videos").glob("*.mp4"))) == 1
    check_page((out / "report.md").read_text(encoding="utf-8"), out)

    again = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, encoding="utf-8"
    )
    assert again.returncode != 0
    assert "continue it with resume=true" in again.stderr
    resumed = subprocess.run(
        [*command, "resume=true"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        encoding="utf-8",
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    second = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert second["success"]["RFTF"]["episodes"] == results["success"]["RFTF"]["episodes"]


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
