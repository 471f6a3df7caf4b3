"""Lists of episodes, and policies that listen or do not."""

import math
import re

import pytest
import torch
from _evaluation_fakes import FakeCollector, trajectory

from rftf_torchrl import (
    Episode,
    held_out_episodes,
    instruction_sensitivity,
    language_table,
    swapped_instructions,
)

PAIRS = [("drawer-open", "drawer-close")]
EPISODES = held_out_episodes(["drawer-open", "reach", "drawer-close"], 3)
OWN = {"drawer-open": "open the drawer", "drawer-close": "close the drawer"}
sentence = {**OWN, "door-lock": "lock the door", "reach": "reach", "push": "push"}.__getitem__
SPOKEN = {"instruction_of": sentence}


def test_held_out_lists_the_same_seeds_for_every_task():
    episodes = held_out_episodes(["a", "b"], 2, first_seed=5, instruction_of=str.upper)
    assert episodes == [
        Episode("a", 5, "A"),
        Episode("a", 6, "A"),
        Episode("b", 5, "B"),
        Episode("b", 6, "B"),
    ]


def test_swapping_changes_the_words_alone():
    swapped = swapped_instructions(EPISODES, PAIRS, **SPOKEN)
    assert [(e.task, e.seed) for e in swapped] == [
        (e.task, e.seed) for e in EPISODES if e.task != "reach"
    ]
    assert {e.task: e.instruction for e in swapped} == {
        "drawer-open": "close the drawer",
        "drawer-close": "open the drawer",
    }
    named = swapped_instructions(EPISODES, [("reach", "push")], instruction_of=str.upper)
    assert {e.instruction for e in named} == {"PUSH"}


def player(listens):
    """The chunk is the seed, plus 10 for closing words; only the right words succeed."""

    def play(index, episode):
        words = episode.instruction or OWN[episode.task]
        closing = 10.0 if listens and words.startswith("close") else 0.0
        right = not listens or words == OWN[episode.task]
        chunk = torch.full((4, 2), episode.seed + closing)
        return trajectory([0.0, 0.5], success=right, chunk=chunk, state=episode.seed)

    return play


def test_a_policy_that_listens():
    collector = FakeCollector(player(listens=True))
    report = instruction_sensitivity(collector, EPISODES, PAIRS, **SPOKEN, seed=4)
    row = report["tasks"]["drawer-open"]
    # chunks 0, 1, 2 against 10, 11, 12; pairwise distances 1, 1, 2
    assert row["change"] == pytest.approx(10.0)
    assert row["spread"] == pytest.approx(4 / 3)
    assert report["ratio"] == pytest.approx(7.5)
    assert (row["own"]["rate"], row["swapped"]["rate"]) == (1.0, 0.0)
    assert report["success"]["pooled"]["lost"] == 6
    assert [(len(e), deterministic, seed) for e, deterministic, seed in collector.calls] == [
        (6, True, 4)
    ] * 2


def test_a_policy_that_does_not():
    report = instruction_sensitivity(
        FakeCollector(player(listens=False)), EPISODES, PAIRS, instruction_of=sentence
    )
    assert report["ratio"] == 0.0
    assert report["success"]["pooled"]["difference"] == 0.0


def test_a_single_episode_has_no_spread():
    episodes = held_out_episodes(["drawer-open"], 1)
    report = instruction_sensitivity(
        FakeCollector(player(listens=True)), episodes, PAIRS, instruction_of=sentence
    )
    assert report["tasks"]["drawer-open"]["change"] == pytest.approx(10.0)
    assert math.isnan(report["ratio"])


def test_the_ratio_is_the_mean_of_the_tasks_that_have_one():
    episodes = held_out_episodes(["drawer-open"], 3) + held_out_episodes(["drawer-close"], 1)
    collector = FakeCollector(player(listens=True))
    report = instruction_sensitivity(collector, episodes, PAIRS, instruction_of=sentence)
    assert math.isnan(report["tasks"]["drawer-close"]["ratio"])
    assert report["ratio"] == report["tasks"]["drawer-open"]["ratio"] == pytest.approx(7.5)


def test_a_crash_leaves_the_other_pairs():
    def play(index, episode):
        dies = episode.instruction is not None and episode.seed == 0
        return None if dies else player(listens=True)(index, episode)

    report = instruction_sensitivity(FakeCollector(play), EPISODES, PAIRS, **SPOKEN)
    assert report["tasks"]["drawer-open"]["spread"] == pytest.approx(1.0)
    assert report["success"]["dropped"] == 2


def test_table():
    report = instruction_sensitivity(
        FakeCollector(player(listens=True)), EPISODES, PAIRS, instruction_of=sentence
    )
    row = "| 10.000 | 1.333 | 7.50 | 100.0% | 43.9% to 100.0% | 0.0% | 0.0% to 56.1% |"
    assert language_table(report) == "\n".join(
        [
            "| task | change | spread | ratio | own instruction | 95% interval | swapped "
            "instruction | 95% interval |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
            f"| drawer-open {row}",
            f"| drawer-close {row}",
        ]
    )


def restarts_elsewhere(index, episode):
    part = player(listens=True)(index, episode)
    if episode.instruction is not None:
        part["observation", "state"] += 1.0
    return part


BROKEN = [
    (
        lambda: held_out_episodes(["reach"], 0),
        "per_task is 0; expected at least one episode per task.",
    ),
    (
        lambda: held_out_episodes(["reach", "reach"], 1),
        "tasks is ['reach', 'reach']; expected one or more different names.",
    ),
    (
        lambda: swapped_instructions(
            EPISODES, [("reach", "push"), ("push", "pick-place")], instruction_of=sentence
        ),
        "task 'push' is in two pairs, with 'reach' and with 'pick-place'; expected one partner per "
        "task. Choose one of the pairs.",
    ),
    (
        lambda: swapped_instructions(
            EPISODES, [("door-lock", "door-unlock")], instruction_of=sentence
        ),
        "none of the tasks ['drawer-close', 'drawer-open', 'reach'] is in a pair; expected at "
        "least one whose scene it shares with another task.",
    ),
    (
        lambda: instruction_sensitivity(
            FakeCollector(restarts_elsewhere), EPISODES, PAIRS, instruction_of=sentence
        ),
        "the episode of task 'drawer-open' with seed 0 starts in another ('observation', 'state') "
        "with the swapped instruction; expected an environment whose initial state depends on the "
        "seed alone.",
    ),
]


@pytest.mark.parametrize(("call", "message"), BROKEN)
def test_broken_inputs(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
