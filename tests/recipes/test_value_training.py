"""How the recipes train value models: from demonstrations, rollouts and fine-tuning's episodes."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tensordict import TensorDict
from tiny import TINY

from rftf_torchrl import (
    keys,
    load_demonstrations,
)

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]


def test_value_report_of_held_out_demonstrations(cloned):
    with open(f"{cloned.output}/value/report.json", encoding="utf-8") as file:
        report = json.load(file)
    assert 0 <= report["pairwise_accuracy"] <= 1


def test_demonstrations_of_other_tasks_are_left_out(cloned):
    from rftf_torchrl.configs.artefacts import whole_demos

    both = whole_demos(cloned)
    assert len({episode.task_id for episode in both.episodes}) == 2
    one = replace(cloned, env=replace(cloned.env, tasks=cloned.env.tasks[:1]))
    found = whole_demos(one).episodes
    assert found == both.select(cloned.env.tasks[:1]).episodes
    assert 0 < len(found) < len(both.episodes)


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


@pytest.mark.parametrize(("fade", "steps"), [(False, 60), (True, 20)])
def test_a_reward_that_fades_refreshes_by_the_share_of_failures(cloned, monkeypatch, fade, steps):
    from rftf_torchrl.configs.artefacts import load_value_model
    from rftf_torchrl.recipes.refresh_value import ValueRefresh

    value, reward = replace(cloned.value, refresh_steps=60), replace(cloned.reward, fade=fade)
    config = replace(cloned, value=value, reward=reward)
    refresh = ValueRefresh(config, load_value_model(config))
    taken: list[int] = []
    monkeypatch.setattr(refresh.steps, "step", lambda *_: taken.append(1))
    episodes = [failure(refresh.train.frames[:4].clone()) for _ in range(3)]
    for number, episode in enumerate(episodes):
        episode["collector", "traj_ids"] += number
        episode["next", keys.SUCCESS][-1] = number > 0
    refresh.learn(torch.cat(episodes), iteration=0)
    assert len(taken) == steps


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
        for states in (reached, refresh.train.frames[refresh.train.places])
    ]
    assert [float(mean) for mean in means] == pytest.approx([0.0, 1.0], abs=1e-3)


def test_what_can_not_be_calibrated_is_dropped_and_the_former_model_pays(cloned, caplog):
    from rftf_torchrl.configs.artefacts import load_value_model
    from rftf_torchrl.recipes.refresh_value import ValueRefresh

    config = replace(cloned, value=replace(cloned.value, refresh_steps=60, learning_rate=3e-3))
    paying = load_value_model(config)
    refresh = ValueRefresh(config, paying)
    former = deepcopy(paying.state_dict())
    frames = refresh.train.frames.clone()
    refresh.train = replace(refresh.train, frames=frames * 0)  # ends look as starts do
    refresh.learn(failure(frames), iteration=3)
    assert "iteration 3: what the value model learned is dropped, the former one pays" in (
        caplog.text
    )
    for model in (paying, refresh.model):
        assert all(torch.equal(former[name], new) for name, new in model.state_dict().items())


def final_gap(model, goal, reached):
    return float(model(goal.clone())["temporal_value"] - model(reached)["temporal_value"].max())


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


@pytest.mark.parametrize("value", ["ranking_failures", "ranking_rollouts"])
def test_rollouts_of_the_cloned_policy(cloned, configure, tmp_path, value):
    from rftf_torchrl.recipes.train_value import train_value

    config = configure(
        *TINY,
        f"value={value}",
        f"output={tmp_path}",
        f"demos.path={cloned.output}/demos",
        f"policy.path={cloned.output}/bc/policy.safetensors",
    )
    file, extra_steps = train_value(config)
    assert file.is_file()
    report = json.loads((tmp_path / "value" / "report.json").read_text(encoding="utf-8"))
    assert report["simulator_steps"] == extra_steps > 0
    assert 0 <= report["pairwise_accuracy"] <= 1


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
