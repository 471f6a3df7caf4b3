"""Summaries and the report: known differences are found, and the same cells give the same bytes."""

import csv
import math

import pytest
import torch
from _synthetic import make_cell, make_cells

from rftf_torchrl import (
    CellError,
    Cells,
    CurvePoint,
    curve_band,
    level_steps,
    mean_over_training,
    summarise,
    write_study_report,
)

pytest.importorskip("scipy.stats")


def test_a_known_difference_is_found_and_none_is_not_invented():
    sparse, better = summarise(make_cells(0.3), "easy", baseline="sparse")
    assert better.final_difference.low > 0.1
    assert better.final_difference.estimate == pytest.approx(0.3, abs=0.1)
    assert better.improvement.estimate > 0.9
    assert better.during_difference.estimate == pytest.approx(better.during - sparse.during)
    assert better.iqm.low <= better.iqm.estimate <= better.iqm.high
    assert sparse.final_difference.estimate == 0
    assert sparse.improvement.estimate == 0.5
    _, same = summarise(make_cells(0.0), "easy", baseline="sparse")
    assert same.final_difference.low < 0 < same.final_difference.high


def test_steps_to_the_baselines_end():
    fast = [make_cell("fast", seed, (1.0, 1.0)) for seed in range(2)]
    slow = [make_cell("sparse", seed, (0.6, 0.6)) for seed in range(2)]
    cells = Cells([*slow, *fast])
    sparse, found = summarise(cells, "easy", baseline="sparse", levels=(0.9,))
    assert sparse.levels[0].of_mean == math.inf
    assert sparse.levels[0].reached == 0
    assert sparse.levels[1].of_mean == pytest.approx(1000)
    assert found.levels[1].level == pytest.approx(0.6)
    assert found.levels[1].of_mean == pytest.approx(500)
    assert (found.levels[1].reached, found.levels[1].median) == (2, pytest.approx(500))


def test_a_baseline_that_rises_to_its_end_reaches_it_though_another_run_is_shorter():
    slow = [make_cell("sparse", seed, (0.6, 0.6)) for seed in range(2)]
    curve = CurvePoint(0, (0.2, 0.2)), CurvePoint(500, (0.3, 0.3))
    short = [make_cell("short", seed, (0.3, 0.3), curve=curve) for seed in range(2)]
    sparse, other = summarise(Cells([*slow, *short]), "easy", baseline="sparse")
    assert sparse.levels[0].of_mean == pytest.approx(slow[0].env_steps)
    assert other.levels[0].of_mean == math.inf


def test_a_level_that_is_reached_after_the_shortest_run_has_ended():
    """Every later evaluation counts, not only the end."""
    points = [(0, 0.0), (100, 0.2), (200, 0.9), (1000, 0.6)]
    cell = make_cell(final=(0.6, 0.6), curve=tuple(CurvePoint(x, (y, y)) for x, y in points))
    found = level_steps([cell], torch.tensor([0.0, 100.0]).double(), 0.8)
    assert found.of_mean == pytest.approx(found.median) == pytest.approx(100 + 100 * 6 / 7)


def test_bands_and_means_of_curves():
    cells = [make_cell(final=(0.4, 0.4)), make_cell(seed=1, final=(0.8, 0.8))]
    grid = torch.tensor([0.0, 250.0, 1000.0]).double()
    band = curve_band(cells, grid)
    torch.testing.assert_close(band.mean, torch.tensor([0.2, 0.3, 0.6]).double())
    assert band.low[0] == band.high[0] == pytest.approx(0.2)
    assert band.low[2] == 0.0, "cut to [0, 1]"
    during = mean_over_training(cells, grid)
    torch.testing.assert_close(during, torch.tensor([0.3, 0.5]).double())
    assert level_steps(cells, grid, 0.5).median == math.inf, "one of two is censored"


def test_the_same_cells_give_the_same_bytes(tmp_path):
    cells = make_cells(0.2, seeds=3, task_sets=("easy", "hard"))
    contents = []
    for name in ("one", "two"):
        write_study_report(cells, tmp_path / name, baseline="sparse", levels=(0.5,), resamples=200)
        contents.append({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    assert contents[0].keys() == {
        "report.md", "cells.csv", "curves.csv", "methods.csv", "curves_easy.png", "curves_hard.png"
    }  # fmt: skip
    text = contents[0]["report.md"].decode()
    for words in ("python recipes/compare.py study=quick", "torch 2.13.0", "0, 1, 2", "12.0 min"):
        assert words in text


def test_the_tables_hold_the_numbers(tmp_path):
    write_study_report(make_cells(0.2), tmp_path, baseline="sparse", resamples=100)
    with (tmp_path / "cells.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 5 * 2
    assert all(int(row["successes"]) <= int(row["trials"]) == 20 for row in rows)
    with (tmp_path / "methods.csv").open(encoding="utf-8") as file:
        methods = {row["method"]: row for row in csv.DictReader(file)}
    assert float(methods["rftf"]["final_difference_low"]) > 0


def test_an_unknown_baseline_is_refused(tmp_path):
    with pytest.raises(CellError, match="there is no method 'bc' on task set 'easy'"):
        write_study_report(make_cells(0.0), tmp_path, baseline="bc")
