import csv
import logging
import re

import pytest

from rftf_torchrl import MetricsFile, read_metrics


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def test_columns_are_the_union_in_order_of_appearance(path):
    metrics = MetricsFile(path)
    metrics.write(0, {"loss": 0.5})
    metrics.write(2, {"loss": 0.25, "success, mean": 1})
    metrics.write(5, {"success, mean": float("nan")})
    assert table(path) == [
        ["step", "loss", "success, mean"],
        ["0", "0.5", ""],
        ["2", "0.25", "1.0"],
        ["5", "", "nan"],
    ]


def test_numbers_read_back_exactly(path):
    values = [0.1 + 0.2, 1e-300, float("inf"), -3.0]
    metrics = MetricsFile(path)
    for step, value in enumerate(values):
        metrics.write(step, {"x": value})
    assert [float(row["x"]) for row in MetricsFile(path).rows] == values


def test_metrics_of_one_step_share_a_row(path):
    metrics = MetricsFile(path)
    metrics.write(0, {"loss": 0.5})
    metrics.write(1, {"loss": 0.25})
    metrics.write(1, {"success": 1.0})
    metrics.write(1, {"loss": 0.125})
    assert table(path) == [["step", "loss", "success"], ["0", "0.5", ""], ["1", "0.125", "1.0"]]


def test_rows_are_on_disk_at_once_and_only_appended(path):
    metrics = MetricsFile(path)
    metrics.write(0, {"loss": 0.5})
    file = path.stat().st_ino
    metrics.write(1, {"loss": 0.25})
    assert path.stat().st_ino == file
    assert len(table(path)) == 3
    assert [other.name for other in path.parent.iterdir()] == ["metrics.csv"]


def test_a_line_cut_by_a_kill_is_dropped(path):
    metrics = MetricsFile(path)
    for step in range(3):
        metrics.write(step, {"loss": float(step)})
    path.write_text(path.read_text(encoding="utf-8") + "3,0.", encoding="utf-8")
    resumed = MetricsFile(path)
    resumed.write(3, {"loss": 3.0})
    assert table(path) == [["step", "loss"], *([str(i), f"{i}.0"] for i in range(4))]


def test_a_resumed_run_replaces_what_it_repeats(path, caplog):
    metrics = MetricsFile(path)
    for step in range(5):
        metrics.write(step, {"loss": float(step)})
    resumed = MetricsFile(path)
    with caplog.at_level(logging.INFO):
        resumed.write(3, {"loss": 30.0})
    resumed.write(4, {"loss": 40.0})
    assert [row["loss"] for row in MetricsFile(path).rows] == ["0.0", "1.0", "2.0", "30.0", "40.0"]
    assert f"{path}: 2 rows from step 3 on are replaced" in caplog.text


def test_steps_must_not_decrease(path):
    metrics = MetricsFile(path)
    metrics.write(4, {"loss": 0.5})
    message = f"Step 3 comes after step 4 in {path}: steps must not decrease."
    with pytest.raises(ValueError, match=re.escape(message)):
        metrics.write(3, {"accuracy": 0.5})
    assert table(path) == [["step", "loss"], ["4", "0.5"]]


@pytest.mark.parametrize("content", ["", "time,loss\n0,1\n", "step,loss\n0,1,2\n"])
def test_another_file_is_not_touched(path, content):
    path.write_text(content, encoding="utf-8")
    message = (
        f"{path} is not a table of metrics (first column 'step'): move it away or choose another "
        "folder."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        MetricsFile(path)
    assert path.read_text(encoding="utf-8") == content


def test_the_reader_gives_numbers_and_leaves_out_what_was_not_logged(path):
    metrics = MetricsFile(path)
    metrics.write(0, {"loss": 0.1 + 0.2})
    metrics.write(2, {"success": 1.0})
    with path.open("a", encoding="utf-8") as file:
        file.write("3,0.")
    assert read_metrics(path) == [{"step": 0.0, "loss": 0.1 + 0.2}, {"step": 2.0, "success": 1.0}]


def test_no_metrics_to_read(path):
    message = f"{path} does not exist: no metrics were logged there."
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        read_metrics(path)
