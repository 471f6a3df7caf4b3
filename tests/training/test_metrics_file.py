import csv
import logging
import re

import pytest

from rftf_torchrl import MetricsFile, read_metrics


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [line[:-1] for line in csv.reader(file)]


def of_three_rows(path):
    metrics = MetricsFile(path)
    for step in range(3):
        metrics.write(step, {"loss": float(step)})
    return metrics


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
    of_three_rows(path)
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


@pytest.mark.parametrize(
    "content", ["", "time,loss\n0,1\n", 2**18 * "s" + "\n", 'step,"loss\n0,1\n']
)
def test_another_file_is_not_touched(path, content):
    path.write_text(content, encoding="utf-8")
    message = (
        f"{path} is not a table of metrics (first column 'step'): move it away or choose another "
        "folder."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        MetricsFile(path)
    assert path.read_text(encoding="utf-8") == content


AGAIN = "Copy the file again from where it is whole; where you changed it yourself, "
DIFFERS = "the line, one before it, or a name in line 1 differs from the digest. "


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("1,1.0", "1,1.5", f"line 3: {DIFFERS}"),
        ("\n1,", "\n3,", f"line 3: {DIFFERS}"),
        ("1.0,row", "1.0,end", f"line 3: {DIFFERS}"),
        ("step,loss", "step,kl", f"line 2: {DIFFERS}"),
        ("step,loss", "step,loss,kl", "line 2: it has 3 cells, expected 4. "),
        ("\n1,1.0,", "\n\n1,1.0,", "line 3: it has 0 cells, expected 3. "),
        ("1,1.0", '1,"1.0', "line 4: unexpected end of data. "),
        ("2,2.0", "2," + 2**18 * "2", "line 4: field larger than field limit (131072). "),
    ],
)
def test_a_changed_line_is_refused(path, old, new, problem):
    of_three_rows(path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    message = f"{path}, {problem}{AGAIN}remove the column 'digest'."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MetricsFile(path)


def test_a_line_that_was_taken_out_is_refused(path):
    of_three_rows(path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]), encoding="utf-8")
    message = f"{path}, line 3: {DIFFERS}{AGAIN}remove the column 'digest'."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_metrics(path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0,1,2", "it has 3 cells, expected 2"),
        ("0,much", "could not convert string to float: 'much'"),
        ("x,1", "invalid literal for int() with base 10: 'x'"),
    ],
)
def test_a_line_without_a_digest_has_to_be_numbers(path, line, problem):
    path.write_text(f"step,loss\n{line}\n", encoding="utf-8")
    message = f"{path}, line 2: {problem}. {AGAIN}repair the line."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MetricsFile(path)


def test_a_file_without_digests_is_taken_and_gets_them(path):
    path.write_text("step,loss\n0,0.5\n", encoding="utf-8")
    assert read_metrics(path, ended=True) == [{"step": 0.0, "loss": 0.5}]
    MetricsFile(path).write(1, {"loss": 0.25})
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "step,loss,digest"
    assert all(re.fullmatch(r"\d,[\d.]+,row:[0-9a-f]{16}", line) for line in lines[1:])


def test_a_run_that_ended_says_so_until_it_goes_on(path):
    metrics = of_three_rows(path)
    before = path.read_text(encoding="utf-8")
    metrics.end()
    assert read_metrics(path, ended=True)[-1] == {"step": 2.0, "loss": 2.0}
    assert table(path)[-1] == ["2", "2.0"]
    assert ",end:" in path.read_text(encoding="utf-8")
    resumed = MetricsFile(path)
    assert resumed.ended
    resumed.end()
    resumed.write(2, {"loss": 2.0})
    assert path.read_text(encoding="utf-8") == before
    resumed.end()
    resumed.write(3, {"loss": 3.0})
    assert path.read_text(encoding="utf-8").count("end:") == 0
    assert MetricsFile(path).rows == resumed.rows


@pytest.mark.parametrize(("lines", "last"), [(3, "1"), (1, "none")])
def test_a_file_that_was_cut_between_lines(path, lines, last):
    of_three_rows(path).end()
    kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
    path.write_text("".join(kept), encoding="utf-8")
    assert len(read_metrics(path)) == lines - 1
    message = (
        f"{path} breaks off, its last step is {last}: the run was stopped and can be resumed, or "
        "the file was cut and has to be copied again from where it is whole."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_metrics(path, ended=True)


def test_a_run_does_not_go_on_behind_a_gap(path):
    metrics = of_three_rows(path)
    metrics.go_on_from(3)
    message = (
        f"{path} breaks off at step 2, expected rows up to step 3: copy it again from where it is "
        "whole, or remove it to go on without it."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        metrics.go_on_from(4)
    MetricsFile(path.with_name("none.csv")).go_on_from(4)


def test_rows_behind_the_checkpoint_are_dropped(path):
    of_three_rows(path).end()
    MetricsFile(path).go_on_from(2)
    assert [row["step"] for row in read_metrics(path)] == [0, 1]
    resumed = MetricsFile(path)
    resumed.end()
    assert [row["step"] for row in read_metrics(path, ended=True)] == [0, 1]


@pytest.mark.parametrize("name", ["step", "digest"])
def test_a_metric_is_not_called_as_a_column_of_the_table(path, name):
    message = f"Metric '{name}' has the name of a column that every table has."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MetricsFile(path).write(0, {name: 1.0})


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
