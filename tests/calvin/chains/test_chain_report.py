"""The numbers that the benchmark reports, checked by hand."""

import importlib.util
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rftf_torchrl import (
    Chain,
    ChainReport,
    ChainResult,
    benchmark_sequences,
    bounded_mean_interval,
    chain_comparison_table,
    compare_chains,
    load_sentences,
    training_sequences,
    wilson_interval,
)
from rftf_torchrl.calvin.chains.protocol import chains_digest, protocol_label, sentences_label
from rftf_torchrl.calvin.chains.results import ChainFile

TASKS = ("open_drawer", "turn_on_led", "move_slider_left", "push_red_block_left", "stack_block")


def result(index, length, tasks=TASKS):
    steps = tuple(10 * (place + 1) for place in range(min(length + 1, len(tasks))))
    return ChainResult(index, tasks, steps, length)


def report(*lengths, **changes):
    results = tuple(result(index, length) for index, length in enumerate(lengths))
    return replace(ChainReport(results, settings={"steps_per_subtask": 360}), **changes)


def test_success_in_a_row_and_average_length():
    four = report(0, 2, 5, 5)
    assert [rate["successes"] for rate in four.in_a_row] == [3, 3, 2, 2, 2]
    assert [rate["rate"] for rate in four.in_a_row] == [0.75, 0.75, 0.5, 0.5, 0.5]
    assert (four.in_a_row[0]["low"], four.in_a_row[0]["high"]) == wilson_interval(3, 4)
    assert four.average_length == 3.0
    assert four.average_length_interval == bounded_mean_interval([0, 2, 5, 5], 0, 5)


def test_the_average_length_is_the_sum_of_the_rates_in_a_row():
    many = report(0, 1, 3, 4, 5, 2, 5)
    assert many.average_length == pytest.approx(sum(rate["rate"] for rate in many.in_a_row))


def test_tasks_count_the_times_that_they_were_tried():
    tasks = report(0, 2, 5).tasks
    counts = {task: (rate["successes"], rate["trials"]) for task, rate in tasks.items()}
    assert counts == {
        "open_drawer": (2, 3),
        "turn_on_led": (2, 2),
        "move_slider_left": (1, 2),
        "push_red_block_left": (1, 1),
        "stack_block": (1, 1),
    }
    assert list(tasks) == sorted(tasks)


def test_few_chains_have_an_average_length_that_can_be():
    """One alone, all the same, and some near a bound."""
    for lengths in ((3,), (0, 0, 0, 0), (5, 5, 5, 5), (0, 0, 0, 2)):
        low, high = report(*lengths).average_length_interval
        assert 0 <= low < high <= 5


def test_no_chain():
    assert all(map(math.isnan, report().average_length_interval))
    assert math.isnan(report().average_length)
    assert report().in_a_row == []
    assert report().to_dict()["average_length"] is None
    assert json.loads(json.dumps(report().to_dict(), allow_nan=False))["low"] is None


def test_a_saved_report_is_loaded(tmp_path):
    saved = report(1, 5, crashed=(7,), protocol="Official", versions={"torch": "2"})
    saved.save(tmp_path / "report.json")
    assert ChainReport.load(tmp_path / "report.json") == saved


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"chains": [{"index": 0}]}'])
def test_a_damaged_report(content, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"report\.json is no report on chains: "):
        ChainReport.load(path)


def test_markdown():
    text = report(0, 5, crashed=(4, 9), protocol="NOT the official protocol: 2 chains").markdown()
    assert text.startswith("NOT the official protocol: 2 chains.\n\nAverage length 2.500 (95% in")
    assert "2 chains crashed twice and are not counted: 4, 9." in text
    assert "| 5 in a row | 1 / 2 | 50.0% |" in text
    assert "| open_drawer | 1 / 2 | 50.0% |" in text
    assert "- steps_per_subtask: 360" in text


def test_paired_comparison():
    compared = compare_chains(report(0, 1, 2, 5), report(1, 1, 4, 4))
    assert (compared["before"], compared["after"], compared["difference"]) == (2.0, 2.5, 0.5)
    assert (compared["low"], compared["high"]) == bounded_mean_interval([1, 0, 2, -1], -5, 5)
    assert (compared["longer"], compared["shorter"]) == (2, 1)
    assert [(row["gained"], row["lost"]) for row in compared["in_a_row"]] == [
        (1, 0),
        (0, 0),
        (1, 0),
        (1, 0),
        (0, 1),
    ]
    assert compared["in_a_row"][0]["difference"] == 0.25
    assert compared["dropped"] == 0
    table = chain_comparison_table(compared, ("cloned", "fine-tuned"))
    assert "| 1 in a row | 75.0% | 100.0% | +25.0 |" in table
    assert "| average length | 2.000 | 2.500 | +0.500 |" in table


def test_the_same_results_of_few_chains_do_not_show_that_there_is_no_difference():
    compared = compare_chains(report(0, 3, 5), report(0, 3, 5))
    assert compared["difference"] == 0
    assert compared["low"] == -compared["high"] < -2


def test_chains_that_crashed_in_one_are_dropped():
    after = replace(report(5, 5, 5), results=report(5, 5, 5).results[:2], crashed=(2,))
    compared = compare_chains(report(0, 5, 5), after)
    assert (compared["chains"], compared["dropped"], compared["longer"]) == (2, 1, 1)


INCOMPARABLE = [
    (
        report(5, settings={"steps_per_subtask": 480}),
        "steps_per_subtask is 360 before and 480 after; expected the same protocol",
    ),
    (
        report(results=(result(0, 1, ("stack_block", "open_drawer")),)),
        f"chain 0 is {', '.join(TASKS)} before and stack_block, open_drawer after; expected the "
        "same chains",
    ),
    (
        report(results=(result(8, 1),)),
        "no chain is in both evaluations; expected the same chains",
    ),
]


@pytest.mark.parametrize(("after", "message"), INCOMPARABLE)
def test_what_can_not_be_compared(after, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compare_chains(report(5), after)


def test_a_policy_is_compared_with_a_controller_which_hears_no_sentence():
    policy = report(1, 2, settings={"steps_per_subtask": 360, "sentences": "the benchmark's"})
    assert compare_chains(policy, report(5, 5))["difference"] == 3.5
    ours = replace(policy, settings={**policy.settings, "sentences": "the library's own"})
    with pytest.raises(ValueError, match="expected the same protocol"):
        compare_chains(policy, ours)


def label(**changes):
    official = {
        "steps": 360,
        "chains": benchmark_sequences(),
        "crashed": 0,
        "scene": "D",
        "sentences": "the benchmark's",
        "privileged": None,
    }
    return protocol_label(**{**official, **changes})


LABELS = [
    ({}, "Official protocol: 1000 chains, 360 steps per subtask, scene D"),
    ({"steps": 480}, "NOT the official protocol: 480 steps per subtask"),
    ({"chains": benchmark_sequences(20)}, "NOT the official protocol: 20 of the 1000 chains"),
    (
        {"chains": benchmark_sequences()[300:360]},
        "NOT the official protocol: chains 300 to 359 of the 1000",
    ),
    (
        {"chains": benchmark_sequences()[2::-1]},
        "NOT the official protocol: other chains than the benchmark's",
    ),
    (
        {"chains": training_sequences(0, 3)},
        "NOT the official protocol: other chains than the benchmark's",
    ),
    ({"crashed": 2}, "NOT the official protocol: 2 crashed chains are not counted"),
    (
        {"scene": "B", "sentences": "the library's own"},
        "NOT the official protocol: scene B; other instructions than the benchmark's: the "
        "library's own",
    ),
    (
        {"sentences": None, "privileged": "the controller"},
        "NOT the official protocol: the controller sees the simulator's state",
    ),
]


@pytest.mark.parametrize(("changes", "expected"), LABELS)
def test_the_protocol_is_named(changes, expected):
    assert label(**changes) == expected


def test_sentences_are_named():
    assert sentences_label(None) == "the library's own"
    assert re.fullmatch(r"given \([0-9a-f]{16}\)", sentences_label({"open_drawer": ["open"]}))
    assert sentences_label({"open_drawer": ["open"]}) != sentences_label({"open_drawer": ["pull"]})


def test_digests_tell_chains_apart():
    chains = benchmark_sequences(3)
    other = [*chains[:2], Chain(chains[2].initial_state, chains[2].tasks[::-1])]
    assert chains_digest(chains) == chains_digest(benchmark_sequences(3))
    assert chains_digest(chains) != chains_digest(other)


def test_a_file_of_finished_chains_drops_a_line_that_was_cut_short(tmp_path):
    path = tmp_path / "chains.jsonl"
    file = ChainFile(path, {"seed": 0})
    file.add(result(4, 2))
    file.add(result(1, 5))
    whole = path.read_bytes()
    for cut in (1, 20, 60):
        path.write_bytes(whole[:-cut])
        resumed = ChainFile(path, {"seed": 0})
        assert resumed.results == {4: result(4, 2)}
        resumed.add(result(1, 5))
        assert path.read_bytes() == whole


def test_a_file_whose_first_line_was_cut_short_starts_anew(tmp_path):
    path = tmp_path / "chains.jsonl"
    path.write_text('{"format": "rftf_tor', encoding="utf-8")
    ChainFile(path, {"seed": 0}).add(result(0, 1))
    assert ChainFile(path, {"seed": 0}).results == {0: result(0, 1)}


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "nonsense",
        '{"index": 0, "tasks": ["a"], "steps": [], "length": 1}',
        '{"index": 0, "tasks": ["a"], "steps": [1], "length": 2}',
        '{"index": 0, "tasks": null, "steps": [1], "length": 1}',
    ],
)
def test_a_damaged_line_is_named(line, tmp_path):
    path = tmp_path / "chains.jsonl"
    ChainFile(path, {}).add(result(0, 1))
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    message = r"chains\.jsonl, line 3, is no finished chain .*: remove the line, and the chain is"
    with pytest.raises(ValueError, match=message):
        ChainFile(path, {})


@pytest.mark.parametrize(
    "content", ["index,length\n", "precious", '{"format": "other"}\n', "[1]\n"]
)
def test_another_kind_of_file(content, tmp_path):
    path = tmp_path / "chains.jsonl"
    path.write_text(content, encoding="utf-8")
    message = r"chains\.jsonl is no file of finished chains: move it away or choose another name"
    with pytest.raises(ValueError, match=message):
        ChainFile(path, {})
    assert path.read_text(encoding="utf-8") == content


@pytest.mark.skipif(
    importlib.util.find_spec("calvin_agent") is None,
    reason="needs a checkout of github.com/mees/calvin, its calvin_models on the path",
)
def test_the_sentences_of_a_checkout_are_the_benchmarks():
    spec = importlib.util.find_spec("calvin_agent")
    checkout = Path(spec.submodule_search_locations[0]).parents[1]
    official = load_sentences(checkout, "validation")
    assert sentences_label(official) == "the benchmark's"
    assert sentences_label(load_sentences(checkout, "training")) != "the benchmark's"
    changed = {**official, "open_drawer": ("open it",)}
    assert sentences_label(changed).startswith("given (")
    assert label(sentences=sentences_label(official)) == LABELS[0][1]
