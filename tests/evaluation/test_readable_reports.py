"""No report shows a number that is none, raw Python or an image that is not there."""

import json
import math

import numpy as np
import pytest
import torch
from _pages import check_figure, check_page, saved_figures
from _synthetic import make_cell

from rftf_torchrl import (
    Cells,
    ChainReport,
    ChainResult,
    EpisodeOutcome,
    ScoredEpisode,
    SuccessReport,
    chain_comparison_table,
    compare_chains,
    compare_success,
    comparison_table,
    language_table,
    plot_calibration,
    plot_confusion,
    plot_value_over_progress,
    run_report,
    value_report,
    value_report_tables,
    write_study_report,
)
from rftf_torchrl.evaluation import _figures as figures
from rftf_torchrl.evaluation.report import film_images, image

NONE = {"rate": math.nan, "low": math.nan, "high": math.nan}


def outcomes(*successes, crashed=0):
    ended = [EpisodeOutcome("reach", seed, won, 5) for seed, won in enumerate(successes)]
    lost = [("push", seed) for seed in range(crashed)]
    return SuccessReport(tuple(ended), tuple(lost))


SUCCESS = {
    "one episode": outcomes(True),
    "no success": outcomes(False, False),
    "one task crashed": outcomes(True, False, crashed=2),
    "all crashed": outcomes(crashed=2),
}


@pytest.mark.parametrize("report", SUCCESS.values(), ids=SUCCESS)
def test_success(report):
    from rftf_torchrl.recipes.quickstart_report import success_section

    check_page(report.markdown())
    section = success_section({"cloned": report, "RFTF": report}, "mean")
    check_page(section)
    assert section.splitlines()[0].startswith("The share of episodes that end in success")
    if report.outcomes:
        check_page(comparison_table(compare_success(report, report)))


def test_values_that_nothing_tells():
    from rftf_torchrl.recipes.quickstart_report import separation_section

    found = {"final_auc": math.nan, "final_margin": math.nan}
    section = separation_section({"cloned": found, "RFTF": found})
    check_page(section)
    assert "| cloned | – | – |" in section
    page = run_report("Run", {"Values": section})
    assert page.endswith("\n\n– means that the data do not say.\n")


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(math.nan, "–"), (0.0, "0.00"), (9.996, "10.00"), (10.001, "above 10"), (3880.2, "above 10")],
)
def test_the_ratio_of_a_small_spread_is_not_written_out(ratio, shown):
    row = {"change": 0.5, "spread": math.nan, "ratio": ratio, "own": NONE, "swapped": NONE}
    table = language_table({"tasks": {"reach": row}})
    assert table.splitlines()[-1] == f"| reach | 0.500 | – | {shown} | – | – | – | – |"
    check_page(table)


def chains(*lengths, **settings):
    tasks = ("open_drawer", "close_drawer")
    found = [ChainResult(i, tasks, (9, 9)[: n + 1], n) for i, n in enumerate(lengths)]
    settings = {"steps_per_subtask": 8, "image_size": None, **settings}
    return ChainReport(tuple(found), (7,), "Not the protocol", settings, {"calvin commit": None})


@pytest.mark.parametrize("lengths", [(), (0,), (2,), (0, 2)], ids=str)
def test_chains(lengths):
    report = chains(*lengths)
    check_page(report.markdown())
    assert "- image_size: none" in report.markdown()
    if lengths:
        check_page(chain_comparison_table(compare_chains(report, report)))


@pytest.mark.parametrize("seeds", [1, 2])
def test_pooled_chains(tmp_path, monkeypatch, seeds):
    from rftf_torchrl.recipes.calvin_seeds import pool

    drawn = saved_figures(monkeypatch)
    folders = [tmp_path / f"seed{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        for name in ("rftf", "sparse"):
            (folder / name).mkdir(parents=True)
            (folder / name / "metrics.csv").write_text(
                "step,success,env_steps\n0,0.25,1\n", encoding="utf-8"
            )
        for label in ("cloned", "sparse", "RFTF"):
            chains(0).save(folder / f"chains_{label}.json")
        steps = {"RFTF": 1200, "sparse": 1234}
        (folder / "results.json").write_text(
            json.dumps({"seed": seed, "simulator_steps": steps}), encoding="utf-8"
        )
    pool(folders, tmp_path / "out")
    check_page((tmp_path / "out" / "report.md").read_text(encoding="utf-8"), tmp_path / "out")
    (figure,) = drawn
    check_figure(figure)


def scored(*sources, tasks=("reach",)):
    """An episode of each source and task, whose values rise; finals under two instructions."""
    finals = {"reach": 1.0, "push": 0.5}
    return [
        ScoredEpisode(
            source,
            task,
            torch.linspace(0, 1, 4),
            finals if source in ("demonstration", "success") else {},
        )
        for source in sources
        for task in tasks
    ]


VALUES = {
    "one failure": scored("failure"),
    "one demonstration": scored("demonstration"),
    "no success": scored("demonstration", "wrong_instruction", "failure", tasks=("reach", "push")),
    "everything": 3
    * scored("demonstration", "reversed", "success", "failure", tasks=("reach", "push")),
}


@pytest.mark.parametrize("episodes", VALUES.values(), ids=VALUES)
def test_values(tmp_path, monkeypatch, episodes):
    drawn = saved_figures(monkeypatch)
    report = value_report(episodes, resamples=20)
    tables = value_report_tables(report)
    assert next(iter(tables)) == "How to read this"
    check_page(run_report("Values", tables))
    plot_value_over_progress(report, tmp_path / "progress.png")
    if report.calibration:
        plot_calibration(report, tmp_path / "calibration.png")
    if report.confusion["rows"]:
        plot_confusion(report, tmp_path / "confusion.png")
    for figure in drawn:
        check_figure(figure)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_study(tmp_path, monkeypatch, seeds):
    pytest.importorskip("scipy.stats")
    drawn = saved_figures(monkeypatch)
    cells = [
        make_cell(method, seed, final)
        for method, final in (("sparse", (0.0, 0.0)), ("rftf", (0.5, 1.0)), ("keep", (0.0, 0.0)))
        for seed in range(seeds)
    ]
    path = write_study_report(Cells(cells), tmp_path, baseline="sparse", levels=(0.9,), resamples=9)
    check_page(path.read_text(encoding="utf-8"), tmp_path)
    (figure,) = drawn
    check_figure(figure)


def test_what_a_study_logged(tmp_path, monkeypatch):
    from rftf_torchrl.recipes.study_training import plot_runs, training_table

    drawn = saved_figures(monkeypatch)
    runs = {"sparse": {0: np.array([1.0, math.nan, 3.0])}, "rftf": {0: np.ones(3), 1: np.zeros(3)}}
    check_page(training_table(runs, ["1", "last2"]))
    plot_runs(runs, "loss_critic", tmp_path / "loss.png")
    check_figure(drawn[0])


def test_an_update():
    from rftf_torchrl.recipes.update_report import report_table

    part = {"gain": 0.0, "interval": [-0.1, 0.1]}
    arm = {"own": part, "held_out": part, "kl": 0.0}
    report = {"arms": {"sparse": arm, "rftf": arm}, "difference": part}
    check_page(report_table({**report, "episodes": 2, "success": 0.0}))


def test_films_and_pictures_are_shown(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("videos/a.mp4", "videos/a.webp", "curve.png"):
        (tmp_path / name).touch()
    page = run_report("Run", {"Films": film_images([tmp_path / "videos" / "a.mp4"], tmp_path)})
    with pytest.raises(AssertionError):
        check_page(page, tmp_path)
    check_page(page + image("curve.png"), tmp_path)


@pytest.mark.parametrize(
    "page", ["| reach | nan |", "inf steps", "{'rate': 0.5}", "None", "3880.123", "['a', 'b']"]
)
def test_the_check_finds_what_is_unreadable(page):
    with pytest.raises(AssertionError):
        check_page(page)


LABELS = {"titles": ["a", "b"], "title": None, "x_label": "steps", "y_label": "success"}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"y_label": "success of training episodes " * 3}, "is cut off"),
        ({"x_label": ""}, "the column of 'a' has no label"),
        ({"y_label": ""}, "the row of 'a' has no label"),
        ({"titles": ["a", "nan"]}, "nan"),
    ],
    ids=str,
)
def test_the_check_finds_what_a_figure_lacks(tmp_path, broken, message):
    figure, _ = figures.panels(**{**LABELS, **broken})
    figures.save(figure, tmp_path / "bad.png")
    with pytest.raises(AssertionError, match=message):
        check_figure(figure)


def test_the_check_finds_nothing_else(tmp_path):
    figure, _ = figures.panels(**LABELS)
    figures.save(figure, tmp_path / "good.png")
    check_figure(figure)
