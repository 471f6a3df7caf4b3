"""Counting successes, by hand, and what becomes of crashes."""

import json
import logging
import math
import re

import pytest
import torch
from _evaluation_fakes import FakeCollector, PictureWalkEnv, constant_policy, trajectory
from scipy.stats import binomtest
from tensordict import TensorDict

from rftf_torchrl import (
    Episode,
    EpisodeCollector,
    EpisodeOutcome,
    SuccessReport,
    evaluate_success,
    held_out_episodes,
    success_rates,
    success_report,
)


def play(index, episode):
    """reach: seeds 0, 1, 2 of four succeed after seed + 1 decisions; push: only seed 3; 2 dies."""
    if episode.task == "push" and episode.seed == 2:
        return None
    won = episode.seed < 3 if episode.task == "reach" else episode.seed == 3
    return trajectory([0.0] * (episode.seed + 2), success=won)


EPISODES = held_out_episodes(["reach", "push"], 4)
TABLE = """\
| task | successes | rate | 95% interval | decisions to success | crashed |
|---|---:|---:|---:|---:|---:|
| reach | 3 / 4 | 75.0% | 30.1% to 95.4% | 2.0 | 0 |
| push | 1 / 3 | 33.3% | 6.1% to 79.2% | 4.0 | 1 |
| all episodes | 4 / 7 | 57.1% | 25.0% to 84.2% | 2.5 | 1 |
| mean over tasks |  | 54.2% |  |  |  |"""


def test_counts_and_intervals():
    report = evaluate_success(FakeCollector(play), EPISODES)
    reach, push = report.tasks["reach"], report.tasks["push"]
    assert (reach.successes, reach.trials, reach.crashed) == (3, 4, 0)
    assert (push.successes, push.trials, push.crashed) == (1, 3, 1)
    assert reach.decisions_to_success == pytest.approx((1 + 2 + 3) / 3)
    assert report.mean_rate == pytest.approx((3 / 4 + 1 / 3) / 2)
    assert report.crashed_episodes == (("push", 2),)
    assert report.env_steps == (1 + 2 + 3 + 4) + (1 + 2 + 4)
    expected = binomtest(4, 7).proportion_ci(0.95, method="wilson")
    assert report.pooled.interval == pytest.approx((expected.low, expected.high))


def test_keeps_every_outcome():
    report = evaluate_success(FakeCollector(play), EPISODES)
    assert report.outcomes[0] == EpisodeOutcome("reach", 0, True, 1)
    assert [(o.task, o.seed, o.success) for o in report.outcomes[4:]] == [
        ("push", 0, False),
        ("push", 1, False),
        ("push", 3, True),
    ]


def test_markdown():
    assert evaluate_success(FakeCollector(play), EPISODES).markdown() == TABLE


def test_json_round_trip():
    report = evaluate_success(FakeCollector(play), EPISODES)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["tasks"]["push"]["rate"] == pytest.approx(1 / 3)
    assert data["pooled"]["successes"] == 4
    assert data["crashed"] == 1
    assert data["episodes"][0] == {"task": "reach", "seed": 0, "success": True, "decisions": 1}
    assert SuccessReport.from_dict(data) == report


def test_passes_its_options_on():
    collector, seen = FakeCollector(play), []
    evaluate_success(
        collector, EPISODES, seed=3, deterministic=False, on_episode=lambda r: seen.append(r.index)
    )
    assert collector.calls == [(EPISODES, False, 3)]
    assert seen == [0, 1, 2, 3, 4, 5, 7]


def test_with_the_real_collector():
    policy = constant_policy(0.5)
    with EpisodeCollector(
        lambda episode: PictureWalkEnv(horizon=2), policy, workers=0
    ) as collector:
        report = evaluate_success(collector, held_out_episodes(["walk"], 3))
    assert [(o.seed, o.success, o.decisions) for o in report.outcomes] == [
        (0, True, 2),
        (1, True, 2),
        (2, True, 2),
    ]
    assert report.env_steps == collector.env_steps == 6


def test_success_in_the_middle_counts_as_the_environment_reports_it():
    part = trajectory([0.0, 0.0, 0.0], success=False)
    part["next", "success"][0] = True
    assert success_report(part, [Episode("reach", 0)]).pooled.successes == 1


def test_a_task_without_trials_is_unknown_not_zero(caplog):
    collector = FakeCollector(lambda i, e: None if e.task == "push" else play(i, e))
    with caplog.at_level(logging.WARNING):
        report = evaluate_success(collector, EPISODES)
    assert caplog.messages == [
        "4 of 8 episodes crashed and do not count",
        "no episode of push ended: the mean is over the other tasks",
    ]
    assert math.isnan(report.tasks["push"].rate)
    assert report.mean_rate == report.tasks["reach"].rate
    assert report.to_dict()["tasks_without_episode"] == ["push"]
    assert report.pooled.trials == 4
    assert "| push | 0 / 0 | no episode | – | – | 4 |" in report.markdown()
    assert "| mean over 1 of the 2 tasks |  |" in report.markdown()
    assert SuccessReport.from_dict(report.to_dict()) == report


def test_without_any_trial_the_mean_is_not_known():
    report = SuccessReport((), (("push", 0),))
    assert math.isnan(report.mean_rate)
    assert report.without_episode == ("push",)
    assert "| mean over 0 of the 1 tasks |  | – |" in report.markdown()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_the_log_of_a_task_without_a_trajectory(dtype):
    ends, success = torch.ones(2, 1).to(dtype), torch.tensor([[True], [False]])
    data = TensorDict({"next": {"done": ends, "success": success}}, [2])
    data["task_id"] = torch.zeros(2, 1, dtype=torch.int64)
    data = torch.cat([data.clone().apply(torch.zeros_like), data])  # two that have not ended
    found = success_rates(data, {0: "reach", 1: "push"})
    assert found["success"] == found["success/reach"] == 0.5
    assert math.isnan(found["success/push"])


def broken(name):
    part = trajectory([0.0, 0.0, 0.0], success=True)
    if name == "unfinished":
        part["next", "done"][:] = False
    if name == "two pieces":
        part = torch.cat([trajectory([0.0, 0.0], success=True, index=i) for i in (0, 1, 0)])
    if name == "stranger":
        part["collector", "traj_ids"][:] = 5
    if name == "two-dimensional":
        part = part.unsqueeze(0)
    if name == "crashed":
        part["next", "crashed"][-1] = True
    if name == "no success":
        del part["next", "success"]
    return part


BROKEN = [
    (
        ValueError,
        "unfinished",
        "trajectory 0 ends at row 1 without ('next', 'done'), so its outcome is not known; "
        "expected complete trajectories.",
    ),
    (
        ValueError,
        "two pieces",
        "trajectory 0 comes in two pieces, the second from row 2 on; expected the steps of a "
        "trajectory next to each other.",
    ),
    (
        ValueError,
        "stranger",
        "trajectory 5 belongs to no episode: there are 2; expected the list that was collected.",
    ),
    (
        ValueError,
        "two-dimensional",
        "the trajectories have batch size [1, 2]; expected a flat batch [N] with one trajectory "
        "after another.",
    ),
    (
        ValueError,
        "crashed",
        "trajectory 0 crashed, which says nothing about the policy: drop and count such "
        "trajectories with rftf_torchrl.drop_crashed.",
    ),
    (
        KeyError,
        "no success",
        "('next', 'success') is missing from the trajectories, which hold ('collector', "
        "'traj_ids'), ('next', 'crashed'), ('next', 'done'), ('next', 'temporal_value'), "
        "('observation', 'state'), task_id, temporal_value.",
    ),
]


@pytest.mark.parametrize(("error", "name", "message"), BROKEN)
def test_broken_inputs(error, name, message):
    with pytest.raises(error, match=re.escape(message)):
        success_report(broken(name), EPISODES[:2])


def test_no_episode():
    with pytest.raises(ValueError, match=r"^there is no episode to evaluate; give at least one\.$"):
        evaluate_success(FakeCollector(play), [])
