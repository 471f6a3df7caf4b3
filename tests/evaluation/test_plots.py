"""Plots exist, have their panels and leave no half-written file and no global state behind."""

import re

import matplotlib
import pytest
import torch
from _evaluation_fakes import trajectory
from matplotlib import image
from matplotlib.figure import Figure

from rftf_torchrl import (
    EpisodeOutcome,
    SuccessReport,
    plot_learning_curve,
    plot_success_bars,
    plot_value_over_time,
)
from rftf_torchrl.evaluation.plots import _running_mean

ROWS = [
    {"step": "0", "env_steps": "0", "success": "0.25", "success/reach": "0.5", "success/push": "0"},
    {"step": "1", "env_steps": "1000", "loss": "0.5"},
    {"step": "2", "env_steps": "2000", "success": "0.75", "success/reach": "1.0", "loss": ""},
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    original = Figure.savefig

    def savefig(self, *args, **kwargs):
        figures.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


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
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == ["dense reward", "sparse reward", "behaviour cloning"]


def test_learning_curve_shades_intervals(tmp_path, drawn):
    rows = [
        {"iteration": i, "eval": 0.5, "eval_low": 0.4, "eval_high": 0.6, "eval/reach": 0.5}
        for i in range(3)
    ]
    path = plot_learning_curve(
        rows, tmp_path / "curve.png", x_key="iteration", success_key="eval", title="Run"
    )
    check_png(path, tmp_path)
    assert len(drawn[0].axes[0].collections) == 1
    assert drawn[0].get_suptitle() == "Run"


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
    assert titles == ["reach\n1 successes, 1 failures", "push\n0 successes, 1 failures"]
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


def test_running_mean_looks_back_only():
    assert _running_mean([1.0, 0.0, 0.0, 1.0], 2) == [1.0, 0.5, 0.0, 0.5]
