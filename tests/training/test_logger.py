import re
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rftf_torchrl import MetricsFile, make_logger

CONFIG = {"seed": 3, "model": {"width": 8}}


def log_two_rows(folder, kind):
    with make_logger(kind, folder, CONFIG) as logger:
        logger.log({"train/loss": 0.5}, step=0)
        logger.log({"train/loss": torch.tensor([0.25]), "success": 1}, step=1)


def metrics(folder):
    lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    return [line.rpartition(",")[0] for line in lines]


def test_csv_and_tensorboard_together(tmp_path):
    log_two_rows(tmp_path, "csv+tensorboard")
    assert metrics(tmp_path) == ["step,train/loss,success", "0,0.5,", "1,0.25,1.0"]
    assert (tmp_path / "csv/scalars/train/loss.csv").read_text(
        encoding="utf-8"
    ) == "0,0.5\n1,0.25\n"
    assert (tmp_path / "csv/scalars/success.csv").read_text(encoding="utf-8") == "1,1.0\n"
    assert '"width": 8' in (tmp_path / "csv/texts/config0.txt").read_text(encoding="utf-8")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(0, 0.5), (1, 0.25)]
    assert b'"seed": 3' in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("none", {"metrics.csv"}),
        ("csv", {"metrics.csv", "csv"}),
        ("tensorboard", {"metrics.csv", "tensorboard"}),
    ],
)
def test_each_word_writes_its_own_folder(tmp_path, kind, names):
    log_two_rows(tmp_path, kind)
    assert {path.name for path in tmp_path.iterdir()} == names
    assert metrics(tmp_path) == ["step,train/loss,success", "0,0.5,", "1,0.25,1.0"]


def test_rows_are_on_disk_before_close(tmp_path):
    logger = make_logger("csv+tensorboard", tmp_path, CONFIG)
    logger.log({"loss": 0.5}, step=0)
    assert metrics(tmp_path) == ["step,loss", "0,0.5"]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("loss")] == [0.5]
    logger.close()


def test_a_row_that_is_refused_is_written_nowhere(tmp_path):
    logger = make_logger("csv", tmp_path, CONFIG)
    with pytest.raises(
        ValueError, match=re.escape("Metric 'kl' has shape (3,), expected one number.")
    ):
        logger.log({"loss": 0.5, "kl": torch.zeros(3)}, step=0)
    assert not (tmp_path / "csv").exists()
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("kind", "unknown"), [("tb", ["tb"]), ("csv+mlflow", ["mlflow"]), ("", [""])]
)
def test_unknown_words(tmp_path, kind, unknown):
    message = (
        f"Logger {kind!r} has unknown parts {unknown}: use 'none', or some of ['csv', "
        "'tensorboard', 'wandb'] joined by '+'."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        make_logger(kind, tmp_path, CONFIG)


def test_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    message = "logger=csv+wandb needs the package wandb: pip install 'rftf-torchrl[wandb]'"
    with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(message)}$"):
        make_logger("csv+wandb", tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_has_no_step_twice(tmp_path):
    with make_logger("csv+tensorboard", tmp_path, {}) as logger:
        for step in range(5):
            logger.log({"loss": float(step)}, step)
    with make_logger("csv+tensorboard", tmp_path, {}) as logger:
        for step in range(3, 6):
            logger.log({"loss": 10.0 * step}, step)
    table = (tmp_path / "csv" / "scalars" / "loss.csv").read_text(encoding="utf-8").splitlines()
    assert table == ["0,0.0", "1,1.0", "2,2.0", "3,30.0", "4,40.0", "5,50.0"]
    accumulator = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in accumulator.Scalars("loss")] == [
        (0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (5, 50.0)
    ]  # fmt: skip


def test_the_table_says_whether_the_run_ended(tmp_path):
    def stopped():
        with make_logger("none", tmp_path, {}) as logger:
            logger.log({"loss": 0.5}, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not MetricsFile(tmp_path / "metrics.csv").ended
    with make_logger("none", tmp_path, {}) as logger:
        logger.log({"loss": 0.25}, 1)
    assert MetricsFile(tmp_path / "metrics.csv").ended
