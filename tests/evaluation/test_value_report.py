"""The report on a value model: by hand, against SciPy and scikit-learn, and its intervals."""

import json
import math
import re

import numpy as np
import pytest
import torch
from scipy import stats

from rftf_torchrl import (
    ScoredEpisode,
    calibration_error,
    plot_calibration,
    plot_confusion,
    plot_value_over_progress,
    value_report,
    value_report_tables,
    wilson_interval,
)

NAN = math.nan


def scored(source, task, values, **finals):
    return ScoredEpisode(source, task, torch.tensor(values), finals)


def random_episodes(seed=0, count=7, decimals=6):
    """Two tasks, all sources, random values: with few decimals there are many ties."""
    generator = torch.Generator().manual_seed(seed)
    episodes = []
    for task in ("reach", "push"):
        for source in ("demonstration", "reversed", "success", "failure"):
            for _ in range(count):
                length = int(torch.randint(3, 12, (1,), generator=generator))
                values = torch.rand(length, generator=generator, dtype=torch.float64)
                ends = torch.rand(2, generator=generator).round(decimals=decimals).tolist()
                finals = dict(zip(("reach", "push"), ends, strict=True))
                kept = finals if source in ("demonstration", "success") else {}
                values = values.round(decimals=decimals)
                episodes.append(ScoredEpisode(source, task, values, kept))
    return episodes


def of(episodes, task, source):
    return [e for e in episodes if e.task == task and e.source == source]


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
@pytest.mark.parametrize("decimals", [1, 6])
def test_order_is_scipys(decimals):
    episodes = random_episodes(decimals=decimals)
    report = value_report(episodes, resamples=50)
    for task in ("reach", "push"):
        curves = [e.values for e in of(episodes, task, "demonstration")]
        # SciPy gives NaN for constant values, which we define as no order
        spearman = [stats.spearmanr(c, range(len(c))).statistic for c in curves]
        kendall = [stats.kendalltau(c, range(len(c))).statistic for c in curves]
        lost = [(c.diff() < 0).double().mean().item() for c in curves]
        found = report.tasks[task]["demonstration"]
        for name, expected in (
            ("value_order_correlation", np.nan_to_num(spearman)),
            ("kendall_tau", np.nan_to_num(kendall)),
            ("negative_steps", lost),
            ("gain", [(c[-1] - c[0]).item() for c in curves]),
        ):
            assert found[name].value == pytest.approx(np.mean(expected), abs=1e-9)
            assert found[name].low <= found[name].value <= found[name].high
    means = [report.tasks[task]["demonstration"]["kendall_tau"].value for task in ("reach", "push")]
    assert report.overall["demonstration"]["kendall_tau"].value == pytest.approx(sum(means) / 2)
    assert report.overall["demonstration"]["kendall_tau"].count == 2


@pytest.mark.parametrize("decimals", [1, 6])
def test_areas_are_scikit_learns(decimals):
    metrics = pytest.importorskip("sklearn.metrics")
    episodes = random_episodes(1, decimals=decimals)
    outcome = value_report(episodes, resamples=50).tasks["push"]["outcome"]
    won, lost = of(episodes, "push", "success"), of(episodes, "push", "failure")
    labels = [True] * len(won) + [False] * len(lost)
    for name, score in (("final", lambda v: v[-1].item()), ("max", lambda v: v.max().item())):
        scores = [score(e.values) for e in [*won, *lost]]
        expected = metrics.roc_auc_score(labels, scores)
        assert outcome[f"{name}_auc"].value == pytest.approx(expected, abs=1e-12)
        margin = sum(scores[:7]) / 7 - sum(scores[7:]) / 7
        assert outcome[f"{name}_margin"].value == pytest.approx(margin)


def test_area_and_mean_intervals_are_those_of_scipys_bootstrap():
    episodes = random_episodes(2, count=25)
    report = value_report(episodes, resamples=8000)
    won, lost = (
        [e.values[-1].item() for e in of(episodes, "reach", source)]
        for source in ("success", "failure")
    )

    def area(a, b, axis=-1):
        return stats.mannwhitneyu(a, b, axis=axis).statistic / (len(won) * len(lost))

    expected = stats.bootstrap(
        (won, lost), area, n_resamples=4000, method="percentile", rng=0, vectorized=True
    ).confidence_interval
    found = report.tasks["reach"]["outcome"]["final_auc"]
    assert found.low == pytest.approx(expected.low, abs=0.02)
    assert found.high == pytest.approx(expected.high, abs=0.02)


def test_calibration_is_that_of_all_frames_of_the_task():
    episodes = random_episodes(3)
    report = value_report(episodes, resamples=50, bins=4)
    shown = of(episodes, "reach", "demonstration")
    values = torch.cat([e.values for e in shown])
    progress = torch.cat([torch.linspace(0, 1, len(e.values), dtype=torch.float64) for e in shown])
    found = report.tasks["reach"]["calibration"]
    assert found["error"].value == pytest.approx(calibration_error(values, progress, 4).item())
    deviation = [
        (e.values - torch.linspace(0, 1, len(e.values))).abs().mean().item() for e in shown
    ]
    assert found["deviation"].value == pytest.approx(sum(deviation) / 7, abs=1e-6)
    assert sum(report.calibration["reach"]["frames"]) == len(values)
    assert report.calibration["overall"]["frames"] == [
        a + b
        for a, b in zip(*(report.calibration[t]["frames"] for t in ("reach", "push")), strict=True)
    ]


def test_instructions_by_hand():
    episodes = [
        scored("demonstration", "open", [0.0, 1.0], open=1.0, close=0.2),
        scored("success", "open", [0.0, 0.6], open=0.6, close=0.6),
        scored("demonstration", "close", [0.0, 0.5], open=0.7, close=0.5),
        scored("failure", "close", [0.0, 0.1]),
    ]
    report = value_report(episodes, resamples=20)
    found = report.tasks["open"]["instruction"]
    assert (found["accuracy"].value, found["accuracy"].count) == (0.5, 2), "a tie is no win"
    assert (found["accuracy"].low, found["accuracy"].high) == wilson_interval(1, 2)
    assert found["margin"].value == pytest.approx(0.4)
    pooled = report.overall["instruction"]["accuracy"]
    assert (pooled.value, pooled.count) == (pytest.approx(1 / 3), 3)
    assert (pooled.low, pooled.high) == wilson_interval(1, 3)
    assert report.overall["instruction"]["margin"].value == pytest.approx((0.4 - 0.2) / 2)
    assert report.confusion["rows"] == report.confusion["tasks"] == ["open", "close"]
    assert report.confusion["value"] == [
        pytest.approx([0.8, 0.4]),
        pytest.approx([0.7, 0.5]),
    ]
    assert report.confusion["count"] == [2, 1]


def test_a_perfect_and_a_reversed_value():
    line = torch.linspace(0, 1, 6)
    episodes = [
        ScoredEpisode(source, "reach", values)
        for source, values in (("demonstration", line), ("reversed", line.flip(0)))
        for _ in range(3)
    ]
    overall = value_report(episodes, resamples=20).overall
    assert overall["demonstration"]["pairwise_accuracy"].value == 1
    assert overall["reversed"]["pairwise_accuracy"].value == 0
    assert overall["reversed"]["negative_steps"].value == 1
    assert overall["calibration"]["error"].value == pytest.approx(0, abs=1e-6)
    assert (overall["calibration"]["deviation"].high) == pytest.approx(0, abs=1e-6)


def test_a_constant_value_knows_nothing():
    episodes = [
        scored(source, "reach", [0.5] * 5)
        for source in ("demonstration", "success", "failure")
        for _ in range(3)
    ]
    overall = value_report(episodes, resamples=20).overall
    order = overall["demonstration"]
    assert order["pairwise_accuracy"].value == 0.5
    assert order["value_order_correlation"].value == order["kendall_tau"].value == 0
    assert order["negative_steps"].value == order["gain"].value == 0
    assert overall["outcome"]["final_auc"].value == overall["outcome"]["max_auc"].value == 0.5
    assert overall["outcome"]["final_margin"].value == 0


def test_what_the_data_do_not_tell_is_left_out():
    report = value_report([scored("failure", "reach", [0.0, 0.1])], resamples=10)
    assert set(report.overall) == {"failure"}
    gain = report.overall["failure"]["gain"]
    assert gain.value == pytest.approx(0.1)
    assert math.isnan(gain.low), "a single episode has no interval"
    assert report.calibration == {}
    assert report.confusion["rows"] == []
    tables = value_report_tables(report)
    assert tables["Success and failure"] == ""
    assert "| failures | 1.000 |" in tables["Order, by how the episodes are played"]
    one_side = [scored("success", "a", [0.0, 1.0]), *[scored("failure", "a", [0.0, 0.5])] * 3]
    area = value_report(one_side, resamples=10).tasks["a"]["outcome"]["final_auc"]
    assert (area.value, area.count) == (1.0, 4)
    assert math.isnan(area.high)


def test_the_same_seed_gives_the_same_report():
    first, again, other = (value_report(random_episodes(), resamples=30, seed=s) for s in (4, 4, 5))
    assert json.dumps(first.to_dict()) == json.dumps(again.to_dict())
    assert first.overall["success"]["gain"].value == other.overall["success"]["gain"].value
    assert first.overall["success"]["gain"].low != other.overall["success"]["gain"].low


@pytest.mark.slow
def test_intervals_cover_the_truth():
    generator = torch.Generator().manual_seed(0)
    hits = []
    for seed in range(150):
        values = torch.rand(20, 2, generator=generator)
        episodes = [ScoredEpisode("success", "reach", row) for row in values]
        gain = value_report(episodes, resamples=300, seed=seed).overall["success"]["gain"]
        hits.append(gain.low <= 0 <= gain.high)
    assert 0.87 <= sum(hits) / 150 <= 0.99


def test_curves_are_means_over_episodes_of_any_length():
    episodes = [scored("success", "a", [0.0, 1.0]), scored("success", "a", [0.0, 0.0, 0.5])]
    curve = value_report(episodes, resamples=10).curves["a"]["success"]["value"]
    assert curve[0] == 0
    assert curve[10] == pytest.approx(0.25)
    assert curve[-1] == pytest.approx(0.75)


def test_plots(tmp_path):
    report = value_report(random_episodes(), resamples=20)
    for plot in (plot_value_over_progress, plot_calibration, plot_confusion):
        path = plot(report, tmp_path / f"{plot.__name__}.png", title="all")
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    bare = value_report([scored("failure", "reach", [0.0, 0.1])], resamples=10)
    assert plot_value_over_progress(bare, tmp_path / "bare.png").is_file()
    with pytest.raises(ValueError, match="no demonstrations, whose progress is known"):
        plot_calibration(bare, tmp_path / "no.png")
    with pytest.raises(ValueError, match="no success that was valued under the instructions"):
        plot_confusion(bare, tmp_path / "no.png")


BROKEN = [
    (lambda: value_report([]),
     "there is no episode to report on: score demonstrations or rollouts first"),
    (lambda: scored("dream", "a", [0.0, 1.0]),
     "source is 'dream'; expected one of demonstration, reversed, shuffled, wrong_instruction, "
     "success, failure."),
    (lambda: scored("success", "a", [0.0]),
     "the values of a success episode of task 'a' have shape [1]; expected [n] with n >= 2 "
     "states."),
    (lambda: scored("success", "a", [0.0, NAN]),
     "the values of a success episode of task 'a' are not all finite; a report on them would mean "
     "nothing."),
    (lambda: value_report([scored("success", "a", [0.0, 1.0], a=1.0, b=0.0),
                           scored("success", "b", [0.0, 1.0], a=1.0)]),
     "an episode of task 'b' has final values under the instructions of ['a'], the first episode "
     "under those of ['a', 'b']; expected the same tasks in the same order."),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BROKEN)
def test_broken_input(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
