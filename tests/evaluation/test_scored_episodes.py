"""Which values a model is asked for, and the table of progress."""

import csv
import re
import sys
from dataclasses import replace

import pytest
import torch
from _evaluation_fakes import trajectory
from tensordict import TensorDict
from tensordict.nn import TensorDictModule

from rftf_torchrl import (
    keys,
    load_demonstrations,
    score_demonstrations,
    score_labelled,
    score_rollouts,
    task_instructions,
    write_progress_table,
    write_synthetic_demonstrations,
)
from rftf_torchrl.evaluation import progress_table


@pytest.fixture
def demonstrations(tmp_path):
    return load_demonstrations(write_synthetic_demonstrations(tmp_path / "demos", num_tasks=3))


@pytest.fixture
def model():
    """Progress, plus ten times the instruction's first token."""
    return TensorDictModule(
        lambda state, tokens: state[..., :1] + 10 * tokens[..., :1],
        in_keys=[keys.STATE, keys.TOKENS],
        out_keys=["temporal_value"],
    )


def test_demonstrations_are_played_four_ways(demonstrations, model):
    words = task_instructions(demonstrations)
    assert list(words) == ["task-0", "task-1", "task-2"]
    generator = torch.Generator().manual_seed(0)
    scored = score_demonstrations(model, demonstrations, words, generator=generator)
    assert len(scored) == 4 * len(demonstrations.episodes)
    forward, backward, shuffled, wrong = scored[:4]
    torch.testing.assert_close(forward.values, 10 + torch.linspace(0, 1, 6).double())
    torch.testing.assert_close(backward.values, forward.values.flip(0))
    torch.testing.assert_close(shuffled.values.sort().values, forward.values)
    assert not torch.equal(shuffled.values, forward.values)
    assert forward.final_values == {"task-0": 11.0, "task-1": 21.0, "task-2": 31.0}
    torch.testing.assert_close(wrong.values, 10 + forward.values)
    torch.testing.assert_close(scored[7].values[-1].item(), 31.0)  # the next wrong instruction
    assert [e.source for e in scored[:4]] == [
        "demonstration", "reversed", "shuffled", "wrong_instruction",
    ]  # fmt: skip


def test_an_episode_without_an_outcome_is_neither(demonstrations, model):
    first, second, third = demonstrations.episodes[:3]
    episodes = replace(first, success=True), replace(second, success=False)
    some = replace(demonstrations, episodes=(*episodes, replace(third, success=None)))
    assert [each.source for each in score_labelled(model, some)] == ["success", "failure"]


def test_a_single_task_has_no_wrong_instruction(tmp_path, model):
    root = write_synthetic_demonstrations(tmp_path / "one", num_tasks=1)
    demonstrations = load_demonstrations(root)
    generator = torch.Generator().manual_seed(0)
    scored = score_demonstrations(
        model, demonstrations, task_instructions(demonstrations), generator=generator
    )
    assert {e.source for e in scored} == {"demonstration", "reversed", "shuffled"}


def rollout(states, success, index, task):
    part = trajectory(states, success=success, index=index, task=task)
    part[keys.STATE] = part["temporal_value"].expand(-1, 2)
    part["next", "observation", "state"] = part["next", "temporal_value"].expand(-1, 2)
    part[keys.TOKENS] = torch.full((len(part), 4), task + 1)
    return part


def test_rollouts_have_every_state_once_and_successes_their_ends(demonstrations, model):
    data = torch.cat([rollout([0.0, 0.5, 1.0], True, 0, 1), rollout([0.0, 0.25], False, 1, 0)])
    names = {0: "task-0", 1: "task-1"}
    words = task_instructions(demonstrations)
    won, lost = score_rollouts(model, data, words, task_names=names)
    assert (won.source, won.task) == ("success", "task-1")
    assert won.values.tolist() == [20.0, 20.5, 21.0]
    assert won.final_values == {"task-0": 11.0, "task-1": 21.0, "task-2": 31.0}
    assert (lost.source, lost.values.tolist(), lost.final_values) == ("failure", [10, 10.25], {})


def test_missing_input_is_named(demonstrations, model):
    data = rollout([0.0, 1.0], True, 0, 0).exclude(keys.TOKENS)
    with pytest.raises(KeyError, match=re.escape("('instruction', 'tokens') is missing")):
        score_rollouts(model, data, task_instructions(demonstrations), task_names={})


def test_own_sentence_of_the_episode_is_kept(model):
    """Where a task has several instructions, the bank's one is for the other tasks only."""
    data = rollout([0.0, 1.0], True, 0, 0)
    data[keys.TOKENS] += 4
    words = {
        name: TensorDict({"tokens": torch.full((1, 4), token)}, [1])
        for name, token in (("task-0", 1), ("task-1", 2))
    }
    (won,) = score_rollouts(model, data, words, task_names={0: "task-0"})
    assert won.final_values == {"task-0": 51.0, "task-1": 21.0}


def rows_of(demonstrations):
    return [
        [row, episode.index, row - episode.start]
        for episode in demonstrations.episodes
        for row in range(episode.start, episode.stop)
    ]


def test_progress_as_parquet(demonstrations, model, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write_progress_table(model, demonstrations, tmp_path / "p.parquet"))
    assert {field.name: str(field.type) for field in table.schema} == {
        "index": "int64",
        "episode_index": "int64",
        "frame_index": "int64",
        "progress_dense": "float",
    }
    columns = [table.column(name).to_pylist() for name in progress_table.COLUMNS]
    assert [list(row) for row in zip(*columns[:3], strict=True)] == rows_of(demonstrations)
    assert columns[3][:6] == pytest.approx([10 + i / 5 for i in range(6)])


def test_progress_as_csv(demonstrations, model, tmp_path):
    with write_progress_table(model, demonstrations, tmp_path / "p.csv").open(
        encoding="utf-8"
    ) as file:
        header, *rows = csv.reader(file)
    assert header == ["index", "episode_index", "frame_index", "progress_dense"]
    assert [[int(cell) for cell in row[:3]] for row in rows] == rows_of(demonstrations)
    assert float(rows[5][3]) == pytest.approx(11)


def test_parquet_without_pyarrow_says_what_to_install(demonstrations, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    expected = (
        "a .parquet file (a .csv needs nothing) needs the package pyarrow: "
        "pip install 'rftf-torchrl[parquet]'"
    )
    with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(expected)}$"):
        write_progress_table(model, demonstrations, tmp_path / "p.parquet")
    with pytest.raises(ValueError, match=r"ends in neither '\.parquet' nor '\.csv'"):
        write_progress_table(model, demonstrations, tmp_path / "p.json")


def test_without_pyarrow_the_table_is_csv(tmp_path, monkeypatch, caplog):
    assert progress_table.progress_path(tmp_path) == tmp_path / "progress.parquet"
    monkeypatch.setattr(progress_table, "find_spec", lambda name: None)
    assert progress_table.progress_path(tmp_path) == tmp_path / "progress.csv"
    assert caplog.messages == [
        "pyarrow is not installed, so the values go to progress.csv instead of Parquet"
    ]
