"""A benchmark's episodes: each with noise of its own, resumable, whatever the number of workers."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest
from fakes import BAD_SEED, SeededWalk, make_walk, walk_policy

from rftf_torchrl import BenchmarkReport, Episode, TooManyCrashesError, play_benchmark
from rftf_torchrl.digests import with_digest
from rftf_torchrl.evaluation.benchmark import EpisodeFile, FinishedEpisode

SEEDS = [4, 7, 5, 9]
LENGTHS = [3, 3, 4, 2]


def label(crashed):
    return f"{crashed} crashed"


def episodes(seeds=SEEDS, trouble="none"):
    return [Episode(trouble, seed) for seed in seeds]


def play(played, make_env=make_walk, policy=None, **changes):
    how = {"settings": {"suite": "walks"}, "protocol": label, "workers": 0} | changes
    return play_benchmark(make_env, policy or walk_policy(), played, **how)


def test_the_report_holds_what_happened(tmp_path):
    report = play(episodes())
    assert [(o.seed, o.success, o.decisions) for o in report.outcomes] == [
        (4, True, 3),
        (7, False, 3),
        (5, False, 4),
        (9, False, 2),
    ]
    assert (report.env_steps, report.crashed_episodes) == (sum(LENGTHS), ())
    assert report.settings["suite"] == "walks"
    assert report.settings["episodes"] == 4
    lines = report.markdown().splitlines()
    assert lines[0] == "0 crashed."
    assert "| all episodes | 1 / 4 | 25.0% |" in report.markdown()
    assert lines[-1] == "- episodes: 4"
    report.save(tmp_path / "report.json")
    assert BenchmarkReport.load(tmp_path / "report.json") == report
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    message = re.escape(f"{tmp_path / 'report.json'} is no report of a benchmark: ")
    with pytest.raises(ValueError, match=f"^{message}"):
        BenchmarkReport.load(tmp_path / "report.json")


class LuckyWalk(SeededWalk):
    """An episode succeeds if its last action is above the policy's mean."""

    def _step(self, tensordict):
        lucky = tensordict["action"] > self.position / 2
        after = super()._step(tensordict)
        return after.update({"success": after["done"] & lucky})


def make_lucky(episode):
    return LuckyWalk(episode.task)


gamble = partial(play, make_env=make_lucky, deterministic=False, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"serve": True, "batch": 1}], ids=["copy", "server"])
def test_the_results_do_not_depend_on_the_number_of_workers(how):
    """Actions are drawn: an episode's noise depends on nothing but its place in the list."""
    seeds = range(10)
    here = gamble(episodes(seeds))
    assert 0 < here.pooled.successes < 10
    for workers in (1, 2):
        assert gamble(episodes(seeds), workers=workers, **how) == here
    assert gamble(episodes(seeds[:6])).outcomes == here.outcomes[:6]


def test_the_seed_decides_the_noise():
    reports = [gamble(episodes(range(10)), seed=seed) for seed in (3, 4, 3)]
    assert reports[0].outcomes != reports[1].outcomes
    assert reports[0].outcomes == reports[2].outcomes


def test_a_policy_with_a_memory_is_reset_at_the_start_of_each_episode():
    resets, policy = [], walk_policy()
    policy.reset = lambda: resets.append(True)
    play(episodes(), policy=policy)
    assert len(resets) == len(SEEDS)


def test_what_is_finished_is_not_played_again(tmp_path):
    path, played = tmp_path / "episodes.jsonl", []
    whole = play(episodes(), resume_path=path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:20], encoding="utf-8")
    again = play(episodes(), resume_path=path, on_episode=lambda found: played.append(found.index))
    assert again == whole
    assert played == [2, 3]
    message = (
        f"{path} holds episodes with seed = 0, and now it is 1: move the file away, choose "
        "another (in rftf evaluate output=...), or keep what it was made with"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        play(episodes(), resume_path=path, seed=1)


@pytest.mark.parametrize("other", [[4, 7, 5, 8], [7, 4, 5, 9]])
def test_other_episodes_are_not_taken_for_those_of_the_file(tmp_path, other):
    path, started = tmp_path / "episodes.jsonl", []
    play(episodes(), resume_path=path, on_start=lambda: started.append("first"))
    message = r"holds episodes with tasks and states = 'none \(\w{8}\)', and now it is "
    with pytest.raises(ValueError, match=message):
        play(episodes(other), resume_path=path, on_start=lambda: started.append("other"))
    assert started == ["first"]


@pytest.mark.parametrize("entry", [{"success": 1}, {"index": "0"}, {"more": 1}])
def test_a_damaged_line_is_named(tmp_path, entry):
    path = tmp_path / "episodes.jsonl"
    EpisodeFile(path, {}).add(FinishedEpisode(0, "walk", 4, True, 3))
    line = {"index": 1, "task": "walk", "seed": 0, "success": True, "decisions": 3} | entry
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(with_digest(line)) + "\n")
    message = (
        r"episodes\.jsonl, line 3, is no finished episode \(.*\): remove the line, and the episode "
        r"is run again$"
    )
    with pytest.raises(ValueError, match=message):
        EpisodeFile(path, {})


def test_a_crashed_episode_counts_nowhere():
    seen = []
    report = play(episodes([4, BAD_SEED, 5], "crash"), on_episode=seen.append)
    assert [outcome.seed for outcome in report.outcomes] == [4, 5]
    assert report.crashed_episodes == (("crash", BAD_SEED),)
    assert report.protocol == "1 crashed"
    assert seen[1] is None


@pytest.mark.slow
def test_a_process_that_dies_is_replaced_and_its_episode_played_once_more():
    report = play(episodes([4, BAD_SEED, 5], "exit"), workers=1, max_restarts=2)
    assert [outcome.seed for outcome in report.outcomes] == [4, 5]
    assert report.crashed_episodes == (("exit", BAD_SEED),)
    with pytest.raises(TooManyCrashesError):
        play(episodes([BAD_SEED], "exit"), workers=1, max_restarts=0)


def test_no_episode():
    with pytest.raises(ValueError, match=r"^there is no episode to evaluate; give at least one\.$"):
        play([])
