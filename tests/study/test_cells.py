"""Cell files: they come back as they were, and nothing is made of broken ones."""

import json
import re

import pytest
from _synthetic import make_cell

from rftf_torchrl import CellError, Cells, check_finished_cells, load_cell, load_cells, save_cell


def test_a_cell_comes_back(tmp_path):
    cell = make_cell()
    path = save_cell(tmp_path, cell)
    assert path == tmp_path / "cells" / "easy" / "sparse" / "seed0.json"
    assert load_cell(path) == cell
    assert load_cell(path).command == cell.command
    assert [file.name for file in path.parent.iterdir()] == ["seed0.json"]


def test_time_is_no_result():
    assert make_cell(seconds=1.0, cpu_seconds=1.0) == make_cell(seconds=2.0)
    assert make_cell(final=(0.5, 0.3)) != make_cell(final=(0.5, 0.25))


def test_final_success_leaves_crashes_out():
    outcomes = {"window-open": (True, None, False), "drawer-open": (True, True, None)}
    assert make_cell(outcomes=outcomes).final == (0.5, 1.0)


def damaged(tmp_path, change):
    path = save_cell(tmp_path, make_cell())
    data = json.loads(path.read_text(encoding="utf-8"))
    del data["content_digest"]
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda d: d.update(format="other"),
            "has the format 'other', expected 'rftf_torchrl.cell.1'",
        ),
        (lambda d: d.pop("curve"), "holds no finished cell: curve is not set"),
        (
            lambda d: d["curve"].reverse(),
            "holds no finished cell: the steps [1000, 500, 0] of its curve do not increase",
        ),
        (
            lambda d: d["curve"][0].update(success=[0.5]),
            "holds no finished cell: its curve has [0.5] at step 0, no rate for each task",
        ),
        (
            lambda d: d["outcomes"].update({"drawer-open": [0.5]}),
            "holds no finished cell: outcomes.drawer-open.0=0.5: must be true or false",
        ),
        (
            lambda d: d["outcomes"].update({"drawer-open": [None]}),
            "holds no finished cell: no episode of 'drawer-open' came to an end",
        ),
        (
            lambda d: d["states"].update(shared=2),
            "holds no finished cell: training and evaluation share initial states: "
            "{'training': 10, 'evaluation': 40, 'shared': 2}",
        ),
    ],
)
def test_a_damaged_cell_is_refused(tmp_path, change, reason):
    path = damaged(tmp_path, change)
    with pytest.raises(CellError, match=f"^{re.escape(f'{path} {reason}')}$"):
        load_cell(path)


def test_all_that_is_wrong_is_listed_at_once(tmp_path):
    for seed in range(3):
        save_cell(tmp_path, make_cell(seed=seed))
    truncated = tmp_path / "cells" / "easy" / "sparse" / "seed1.json"
    truncated.write_text(truncated.read_text(encoding="utf-8")[:100], encoding="utf-8")
    expected = {("easy", "sparse", seed): f"sparse-{seed}" for seed in range(4)}
    expected["easy", "sparse", 2] = "other settings"
    folder = tmp_path / "cells" / "easy" / "sparse"
    message = (
        "no report can be made:\n"
        f"  - {folder}/seed1.json is truncated or no JSON: remove it and run the study again\n"
        f"  - {folder}/seed2.json was made under other settings: move it away, or choose another "
        "output\n"
        f"  - {folder}/seed3.json is missing: run the study again, it continues"
    )
    with pytest.raises(CellError, match=f"^{re.escape(message)}$"):
        load_cells(tmp_path, expected)


def test_what_is_finished_is_checked_before_the_rest_is_run(tmp_path):
    """Missing cells are no fault yet; those that no report could use are."""
    here = make_cell().versions
    expected = {("easy", "sparse", seed): f"sparse-{seed}" for seed in range(4)}
    folder = tmp_path / "cells" / "easy" / "sparse"
    check_finished_cells(tmp_path, expected, here)
    for seed in range(3):
        save_cell(tmp_path, make_cell(seed=seed))
    check_finished_cells(tmp_path, expected, here)
    expected["easy", "sparse", 2] = "other settings"
    (folder / "seed1.json").write_text("{", encoding="utf-8")
    message = (
        "no report can be made:\n"
        f"  - {folder}/seed1.json is truncated or no JSON: remove it and run the study again\n"
        f"  - {folder}/seed2.json was made under other settings: move it away, or choose another "
        "output\n"
        f"  - {folder}/seed0.json was made with torch 2.13.0, now 2.14.0; new none, now 1: install "
        "what it was made with, move it away, or choose another output"
    )
    with pytest.raises(CellError, match=f"^{re.escape(message)}$"):
        check_finished_cells(tmp_path, expected, {**here, "torch": "2.14.0", "new": "1"})


def test_a_finished_study_may_be_reported_with_later_versions(tmp_path):
    expected = {("easy", "sparse", seed): f"sparse-{seed}" for seed in range(2)}
    for seed in range(2):
        save_cell(tmp_path, make_cell(seed=seed))
    check_finished_cells(tmp_path, expected, {"torch": "2.14.0"})
    with pytest.raises(CellError, match=r"seed0\.json was made with torch 2\.13\.0, now 2\.14\.0"):
        check_finished_cells(
            tmp_path, {**expected, ("easy", "sparse", 2): None}, {"torch": "2.14.0"}
        )


def test_a_moved_cell_is_refused(tmp_path):
    path = save_cell(tmp_path, make_cell(seed=0))
    path.rename(path.with_name("seed1.json"))
    with pytest.raises(CellError, match=r"seed1\.json is the cell of 'sparse', seed 0: moved here"):
        load_cells(tmp_path, {("easy", "sparse", 1): None})


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            [make_cell(seed=0), make_cell(seed=1, versions={"torch": "2.12.0", "python": "3.11"})],
            "the cells were made with different versions of torch: 2.12.0 (method 'sparse', seed "
            "1), 2.13.0 (method 'sparse', seed 0)",
        ),
        (
            [make_cell(seed=0), make_cell(seed=1), make_cell("rftf", 0)],
            "there is no cell of method 'rftf', task set 'easy', seed 1",
        ),
        ([], "there is no cell"),
    ],
)
def test_cells_that_do_not_fit_each_other(cells, message):
    expected = f"no report can be made:\n  - {message}"
    with pytest.raises(CellError, match=f"^{re.escape(expected)}$"):
        Cells(cells)


def test_an_unknown_method_is_refused():
    message = (
        "there is no method 'rtff' on task set 'easy': the methods are sparse, the task sets easy"
    )
    with pytest.raises(CellError, match=f"^{re.escape(message)}$"):
        Cells([make_cell()]).of("easy", "rtff")
