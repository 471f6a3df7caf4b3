"""Pool CALVIN runs of several seeds into one report.

    python recipes/calvin_seeds.py outputs/calvin/seed* --out docs/results/calvin_state

Reads what ``calvin.py baseline=sparse`` wrote into each folder; writes ``report.md``, a table of
everything (``results.json``) and the learning curves to the folder ``--out``.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rftf_torchrl import (
    ChainReport,
    compare_seeds,
    markdown_table,
    prepare_output,
    read_metrics,
    run_report,
    write_json,
    write_text,
)
from rftf_torchrl.configs.recipe import print_in_any_locale, user_errors
from rftf_torchrl.configs.record import MAY_CHANGE, refuse_changes
from rftf_torchrl.digests import read_record
from rftf_torchrl.evaluation import _figures as figures
from rftf_torchrl.evaluation.report import interval, percent, protocols

POLICIES = ("cloned", "sparse", "RFTF")
RUN_FILE = "quickstart.yaml"
PLACES = ("seed", "demos.path", "policy.path", "value.path")
BUDGETS = {"sparse": ["ppo.env_steps"], "rftf": []}
"""What has to be the same, too: RFTF's steps are what the value model's rollouts leave."""

READING = """\
`k in a row` is the share of chains whose first k tasks were done, and the average length the mean
number of tasks in a row, over chains and seeds. The interval over chains is about these policies,
by empirical likelihood, with each chain's mean over the seeds as the unit; the one over seeds is
about training again, Student's, and needs two seeds. In the curves, dots are the training episodes
of one iteration of a seed. Tasks: how often each was done out of the times that it was tried."""


def load(folders: Sequence[Path]) -> dict[str, list[ChainReport]]:
    """Every policy's evaluations, one a folder.

    Raises:
        FileNotFoundError: if a run has not finished; the message names the file.
    """
    files = [folder / f"chains_{label}.json" for folder in folders for label in POLICIES]
    missing = [file for file in files if not file.is_file()]
    if missing:
        folder, begun = missing[0].parent, (missing[0].parent / RUN_FILE).is_file()
        way = f"rftf calvin baseline=sparse resume=true output={folder}"
        advice = f"run it to its end first by {way}, with the settings that it was begun with"
        other = f"{folder} is no run of rftf calvin: leave it out"
        raise FileNotFoundError(f"there is no {missing[0]}: {advice if begun else other}")
    return {
        label: [ChainReport.load(folder / f"chains_{label}.json") for folder in folders]
        for label in POLICIES
    }


def lengths_table(found: dict[str, list[ChainReport]]) -> str:
    rows = []
    for label, reports in found.items():
        longest = len(reports[0].in_a_row)
        rates = [fmean(r.in_a_row[k]["rate"] for r in reports) for k in range(longest)]
        by_seed = ", ".join(f"{r.average_length:.2f}" for r in reports)
        mean = fmean(r.average_length for r in reports)
        rows.append([label, *map(percent, rates), f"{mean:.3f}", by_seed])
    header = ["policy", *(f"{k} in a row" for k in range(1, longest + 1))]
    return markdown_table([*header, "average length", "by seed"], rows)


def comparison_table(comparisons: dict[str, dict[str, Any]]) -> str:
    def bounds(ends: Sequence[float]) -> str:
        low, high = ends
        return interval(low, high, "+.3f")

    rows = [
        [
            label,
            f"{found['difference']:+.3f}",
            bounds(found["over_chains"]),
            bounds(found["over_seeds"]),
            ", ".join(f"{d:+.2f}" for d in found["by_seed"]),
        ]
        for label, found in comparisons.items()
    ]
    header = ["average length", "difference", "95% interval over chains", "over seeds", "by seed"]
    return markdown_table(header, rows)


def task_table(found: dict[str, list[ChainReport]]) -> str:
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for label, reports in found.items():
        for report in reports:
            for task, rate in report.tasks.items():
                counts[task][label][0] += int(rate["successes"])
                counts[task][label][1] += int(rate["trials"])
    rows = [
        [task, *(f"{done} / {tried}" for done, tried in (counts[task][label] for label in found))]
        for task in sorted(counts)
    ]
    return markdown_table(["task", *found], rows)


def curves(folders: Sequence[Path], path: Path, window: int = 5) -> None:
    """Training success over environment steps: a line per seed, smoothed over iterations."""
    seeds = f"{len(folders)} seed{'s' * (len(folders) > 1)}"
    title = f"Fine-tuning on CALVIN, {seeds}, sampled actions"
    figure, (ax,) = figures.panels(
        [title],
        title=None,
        x_label="environment steps",
        y_label="success in training",
    )
    colours = {"sparse": ("sparse PPO", figures.ORANGE), "rftf": ("RFTF", figures.BLUE)}
    for name, (label, colour) in colours.items():
        for folder in folders:
            rows = read_metrics(folder / name / "metrics.csv", ended=True)
            steps = [row["env_steps"] for row in rows]
            success = [row["success"] for row in rows]
            figures.smoothed_curve(ax, steps, success, window=window, colour=colour, label=label)
    figures.percent_axis(ax, "y")
    figures.steps_axis(ax, 5)
    figures.save(figure, path)


def read_runs(folders: Sequence[Path], out: Path) -> list[dict[str, Any]]:
    """Every run's results.

    Raises:
        ValueError: if a seed is there twice, a run was trained otherwise or has no plain PPO, or
            ``out`` is a run.
    """
    if (out / RUN_FILE).is_file():
        raise ValueError(f"--out {out} is the folder of a run, whose report it would overwrite")
    runs = [read_record(folder / "results.json") for folder in folders]
    places: dict[int, Path] = {}
    for folder, run in zip(folders, runs, strict=True):
        if run["seed"] in places:
            raise ValueError(
                f"{places[run['seed']]} and {folder} are both of seed {run['seed']}: give each "
                "seed once"
            )
        places[run["seed"]] = folder
        for name, budget in BUDGETS.items():
            first, own = (at / name / "settings.json" for at in (folders[0], folder))
            if first.is_file() and own.is_file():
                may_differ = {*MAY_CHANGE, *PLACES} - {"ppo.iterations", *budget}
                advice = "pool runs of one way to train, which differ by their seed alone"
                settings = read_record(first), read_record(own)
                refuse_changes(str(folder / name), *settings, sorted(may_differ), advice)
        if "sparse" not in run["simulator_steps"]:
            raise ValueError(
                f"{folder / 'results.json'} has no plain PPO: run it again by rftf calvin "
                f"baseline=sparse resume=true output={folder}"
            )
    return runs


def pool(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    found = load(folders)
    runs = read_runs(folders, out)
    pairs = [("cloned", "RFTF"), ("cloned", "sparse"), ("sparse", "RFTF")]
    comparisons = {
        f"{after} - {before}": compare_seeds(found[before], found[after]) for before, after in pairs
    }
    prepare_output(out)
    curves(folders, out / "learning_curves.png")
    results = {
        "seeds": [run["seed"] for run in runs],
        "average_length": {k: [r.average_length for r in v] for k, v in found.items()},
        "comparisons": comparisons,
        "simulator_steps": [run["simulator_steps"] for run in runs],
    }
    write_json(out / "results.json", results)
    used = [
        [run["seed"], *(f"{run['simulator_steps'][label]:,}" for label in ("RFTF", "sparse"))]
        for run in runs
    ]
    every = {
        f"{label} of {folder}": report
        for label, reports in found.items()
        for folder, report in zip(folders, reports, strict=True)
    }
    about = dict.fromkeys(run["about"] for run in runs if "about" in run)
    report = run_report(
        f"CALVIN, seed{'s' * (len(runs) > 1)} {', '.join(str(run['seed']) for run in runs)}",
        {
            "How to read it": READING,
            "Success in a row": lengths_table(found),
            "Paired differences": comparison_table(comparisons),
            "Learning curves": "![Learning curves](learning_curves.png)",
            "Simulator steps, rollouts of the value model included": markdown_table(
                ["seed", "RFTF", "sparse"], used
            ),
            "Tasks of the chains, all seeds": task_table(found),
        },
        " ".join([protocols(every), *about]),
    )
    write_text(out / "report.md", report)
    return results


def main() -> None:
    print_in_any_locale()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("-v", action="store_true", help="show where an error was raised")
    arguments = parser.parse_args()
    with user_errors("calvin_seeds", arguments.v):
        pool(arguments.folders, arguments.out)
        print((arguments.out / "report.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
