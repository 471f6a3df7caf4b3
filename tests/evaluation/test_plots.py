"""Plots exist, have their panels and leave no half-written file and no global state behind."""

import re

import matplotlib
import pytest
import torch
from _evaluation_fakes import trajectory
from _pages import check_figure, legend_of, saved_figures
from matplotlib import image
from matplotlib.figure import Figure

from rftf_torchrl import (
    EpisodeOutcome,
    SuccessReport,
    plot_learning_curve,
    plot_success_bars,
    plot_value_over_time,
)

ROWS = [
    {"step": "0", "env_steps": "0", "success": "0.25", "success/reach": "0.5", "success/push": "0"},
    {"step": "1", "env_steps": "1000", "loss": "0.5"},
    {"step": "2", "env_steps": "2000", "success": "0.75", "success/reach": "1.0", "loss": ""},
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    return saved_figures(monkeypatch)


def check_png(path, folder):
    pixels = image.imread(path)
    assert min(pixels.shape[:2]) > 300
    assert pixels[..., :3].std() > 0.01
    assert [file.name for file in folder.iterdir()] == [path.name]


def lines(ax, label):
    return [line.get_xydata().tolist() for line in ax.get_lines() if line.get_label() == label]


def test_learning_curve(tmp_path, drawn):
    path = plot_learning_curve(
        ROWS,
        tmp_path / "curve.png",
        sparse=ROWS[:1],
        baseline={"success": 0.3, "success/push": 0.1},
    )
    check_png(path, tmp_path)
    everything, reach, push = drawn[0].axes
    assert [ax.get_title() for ax in drawn[0].axes] == ["all tasks", "reach", "push"]
    assert lines(everything, "dense reward") == [[[0.0, 0.25], [2000.0, 0.75]]]
    assert lines(everything, "sparse reward") == [[[0.0, 0.25]]]
    assert lines(push, "dense reward") == [[[0.0, 0.0]]]
    assert lines(push, "behaviour cloning") == [[[0.0, 0.1], [1.0, 0.1]]]
    assert lines(reach, "behaviour cloning") == []
    assert legend_of(drawn[0]) == ["dense reward", "sparse reward", "behaviour cloning"]
    check_figure(drawn[0])


def test_a_smoothed_learning_curve_names_its_points_and_its_mean(tmp_path, drawn):
    rows = [{"env_steps": i, "success": s} for i, s in enumerate((1.0, 0.0, 0.0, 1.0))]
    plot_learning_curve(rows, tmp_path / "curve.png", labels=("RFTF", ""), window=2)
    names = ["RFTF, single iterations", "RFTF, mean of the last 2"]
    assert legend_of(drawn[0]) == names
    (points,), (mean,) = (lines(drawn[0].axes[0], name) for name in names)
    assert [y for _, y in points] == [1.0, 0.0, 0.0, 1.0]
    assert [y for _, y in mean] == [1.0, 0.5, 0.0, 0.5], "it looks back only"
    check_figure(drawn[0])


@pytest.mark.parametrize(
    "tasks", [1, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4, 5, 8))]
)
def test_every_column_of_panels_has_its_axis_label(tmp_path, drawn, tasks):
    rows = [{"env_steps": 5, "success": 0.5, **{f"success/{n}": 0.5 for n in range(tasks)}}]
    plot_learning_curve(rows, tmp_path / "curve.png", baseline={"success": 0.0}, window=8)
    assert len(drawn[0].axes) == (1 if tasks == 1 else tasks + 1)
    check_figure(drawn[0])


def test_learning_curve_shades_intervals(tmp_path, drawn):
    rows = [
        {"iteration": i, "eval": 0.5, "eval_low": 0.4, "eval_high": 0.6, "eval/reach": 0.5}
        for i in range(3)
    ]
    path = plot_learning_curve(
        rows, tmp_path / "curve.png", x_key="iteration", success_key="eval", title="Run"
    )
    check_png(path, tmp_path)
    assert legend_of(drawn[0]) == ["dense reward", "interval"]
    assert drawn[0].get_suptitle() == "Run"
    check_figure(drawn[0])


def test_value_over_time(tmp_path, drawn):
    data = torch.cat(
        [
            trajectory([0.0, 0.5, 1.0], success=True, index=0, task=0),
            trajectory([0.0, 0.2, 0.1, 0.3], success=False, index=1, task=0),
            trajectory([0.0, 0.2, 0.1, 0.3], success=False, index=2, task=1),
        ]
    )
    path = plot_value_over_time(
        data, tmp_path / "value.png", "Values", task_names={0: "reach", 1: "push"}
    )
    check_png(path, tmp_path)
    titles = [ax.get_title() for ax in drawn[0].axes]
    assert titles == ["reach\n1 success, 1 failure", "push\n0 successes, 1 failure"]
    assert legend_of(drawn[0]) == [
        "one failure", "mean of the failures", "one success", "mean of the successes"
    ]  # fmt: skip
    check_figure(drawn[0])


def test_value_over_time_without_a_success(tmp_path, drawn):
    plot_value_over_time(trajectory([0.0, 0.1], success=False), tmp_path / "value.png")
    assert legend_of(drawn[0]) == ["one failure", "mean of the failures"]
    check_figure(drawn[0])


def test_times_run_from_0_to_1(tmp_path, drawn):
    data = [trajectory([0.0] * n, success=n > 3, index=n) for n in (2, 3, 4)]
    plot_value_over_time(torch.cat(data), tmp_path / "value.png")
    drawn_lines = [line.get_xdata() for line in drawn[0].axes[0].get_lines()]
    ends = {float(x[i]) for x in drawn_lines if len(x) for i in (0, -1)}
    assert ends == {0.0, 1.0}


def test_success_bars(tmp_path, drawn):
    def report(successes):
        return SuccessReport(
            tuple(
                EpisodeOutcome(task, seed, seed < successes, 5)
                for task in ("reach", "push")
                for seed in range(10)
            )
        )

    path = plot_success_bars(
        report(0), report(9), tmp_path / "bars.png", labels=("cloned", "tuned"), title="Success"
    )
    check_png(path, tmp_path)
    ax = drawn[0].axes[0]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.0] * 3 + [0.9] * 3)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["reach (n = 10)", "push (n = 10)", "all episodes (n = 20)"]
    cloned, tuned = (bars.lines[2][0].get_segments() for bars in ax.containers[1::2])
    assert (cloned[0][:, 0].tolist(), tuned[0][:, 0].tolist()) == (
        pytest.approx([0.0, 0.2775], abs=1e-4),
        pytest.approx([0.5958, 0.9821], abs=1e-4),
    )
    check_figure(drawn[0])


def test_bars_of_a_task_that_only_crashed(tmp_path, drawn):
    won = EpisodeOutcome("reach", 0, True, 5)
    path = tmp_path / "bars.png"
    plot_success_bars(SuccessReport((won,)), SuccessReport((), (("reach", 0),)), path)
    names = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert names == ["reach (n = 1, 0)", "all episodes (n = 1, 0)"]
    check_figure(drawn[0])


def test_leaves_the_global_settings_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    plot_learning_curve(ROWS, tmp_path / "curve.png")
    assert dict(matplotlib.rcParams) == before


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = plot_learning_curve(ROWS, tmp_path / "curve.png")
    before = path.read_bytes()

    def fail(self, file, **kwargs):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_learning_curve(ROWS[:1], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


REPORT = SuccessReport((EpisodeOutcome("reach", 0, True, 5),))
OTHER = SuccessReport((EpisodeOutcome("push", 0, True, 5),))
BROKEN = [
    (
        ValueError,
        lambda path: plot_learning_curve(ROWS, path, success_key="eval"),
        "no row of the run 'dense reward' holds 'eval'; the columns are ['env_steps', 'loss', "
        "'step', 'success', 'success/push', 'success/reach']. Pass success_key.",
    ),
    (
        KeyError,
        lambda path: plot_learning_curve([{"success": 0.5}], path),
        "a row with 'success' has no 'env_steps'; it holds ['success'].",
    ),
    (
        ValueError,
        lambda path: plot_success_bars(REPORT, OTHER, path),
        "the reports are about the tasks ['reach'] and ['push']; expected the same tasks in both.",
    ),
]


@pytest.mark.parametrize(("error", "call", "message"), BROKEN)
def test_broken_inputs(tmp_path, error, call, message):
    with pytest.raises(error, match=re.escape(message)):
        call(tmp_path / "plot.png")
