"""Tabulate what the runs of a study logged while they were fine-tuned.

    python recipes/study_training.py outputs/study_state loss_critic
    python recipes/study_training.py outputs/study_state failure_gain --methods sparse rftf \
        --iterations 1-3 last4
    python recipes/study_training.py outputs/study_state loss_critic --divide keep=4 --out curves

Reads ``<study>/work/<task set>/<method>/seed<seed>/*/metrics.csv``, which ``compare.py`` leaves
there. Prints means over the seeds, with the smallest and the largest seed's in brackets; ``--out``
writes them to a folder, with an image of the curves.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np

from rftf_torchrl import markdown_table, prepare_output, read_metrics, write_text
from rftf_torchrl.configs.recipe import print_in_any_locale
from rftf_torchrl.evaluation import _figures as figures

Runs = dict[str, dict[int, np.ndarray]]
"""By method and seed, what each iteration logged; NaN where it logged nothing, or no number."""


def read_runs(folder: Path, metric: str, methods: Sequence[str] | None = None) -> Runs:
    """Read one metric of every run of a task set.

    Args:
        folder: ``<study>/work/<task set>``.
        metric: a column of ``metrics.csv``.
        methods: those to read, in this order; all in the folder if None.

    Raises:
        FileNotFoundError: if a method has no run.
        KeyError: if a run did not log the metric, of a method that was asked for, or of all.
    """
    asked = methods is not None
    if methods is None:
        methods = sorted(path.name for path in folder.iterdir() if path.is_dir())
    runs: Runs = {}
    without: dict[str, KeyError] = {}
    for method in methods:
        files = sorted(folder.glob(f"{method}/seed*/*/metrics.csv"))
        if not files:
            raise FileNotFoundError(
                f"no {folder / method}/seed*/*/metrics.csv: the folder of a study is wanted, with "
                "'work' as compare.py leaves it, and a method that fine-tunes"
            )
        runs[method] = {}
        for path in files:
            rows = read_metrics(path, ended=True)
            columns = list(dict.fromkeys(name for row in rows for name in row))
            if metric not in columns:
                problem = KeyError(f"{path} has no {metric!r}, but {', '.join(columns)}")
                without.setdefault(method, problem)
                continue
            seed = int(path.parts[-3].removeprefix("seed"))
            runs[method][seed] = np.array([row.get(metric, math.nan) for row in rows])
    if without and (asked or len(without) == len(runs)):
        raise next(iter(without.values()))
    if without:
        print(f"{folder.name}: {', '.join(without)} did not log {metric}", file=sys.stderr)
    return {method: seeds for method, seeds in runs.items() if method not in without}


def span_mean(run: str, values: np.ndarray, span: str) -> float:
    """The mean over a span; iterations that did not log the metric are left out.

    Args:
        run: for messages.
        values: what each iteration logged.
        span: ``"4"``, ``"7-9"``, both counted from 1, or ``"last4"``.

    Raises:
        ValueError: if the span is none, the run ends within it, or has no value there.
    """
    found = re.fullmatch(r"(\d+)(?:-(\d+))?|last(\d+)", span)
    if not found:
        raise ValueError(f"iterations are '4', '7-9' or 'last4', not {span!r}")
    first, end, last = found.groups()
    count = len(values)
    wanted = range(count - int(last), count) if last else range(int(first) - 1, int(end or first))
    if not wanted or wanted.start < 0 or wanted.stop > count:
        raise ValueError(f"{run}: iterations {span} of a run of {count}")
    if np.isnan(values[wanted]).all():
        raise ValueError(f"{run}: the metric was not logged in iterations {span}")
    return float(np.nanmean(values[wanted]))


def equal_spans(runs: Runs, parts: int = 6) -> list[str]:
    """Spans of the same length, up to where the shortest run ends."""
    shortest = min(len(values) for seeds in runs.values() for values in seeds.values())
    edges = [shortest * part // parts for part in range(parts + 1)]
    return [f"{a + 1}-{b}" if a + 1 < b else str(b) for a, b in pairwise(edges) if a < b]


def training_table(runs: Runs, spans: Sequence[str]) -> str:
    """A row a method, a column a span: the mean over seeds, and the range of the seeds' means.

    Raises:
        ValueError: if a run has no value in a span; the message names method and seed.
    """
    rows = []
    for method, seeds in runs.items():
        row = [method, str(len(seeds))]
        for span in spans:
            means = [span_mean(f"{method}, seed {k}", seeds[k], span) for k in seeds]
            row.append(f"{fmean(means):.3g} ({min(means):.3g} to {max(means):.3g})")
        rows.append(row)
    return markdown_table(["method", "seeds", *spans], rows)


def plot_runs(runs: Runs, metric: str, path: Path) -> None:
    """The mean over seeds by iteration, up to where each method's shortest run ends."""
    title = "Mean over the seeds"
    figure, (ax,) = figures.panels([title], title=None, x_label="iteration", y_label=metric)
    for number, (method, seeds) in enumerate(runs.items()):
        shortest = min(map(len, seeds.values()))
        values = np.stack([logged[:shortest] for logged in seeds.values()])
        drawn = np.flatnonzero(~np.isnan(values).all(0))
        mean, low, high = (f(values[:, drawn], axis=0) for f in (np.nanmean, np.nanmin, np.nanmax))
        label = f"{method} ({len(seeds)} seed{'s' * (len(seeds) > 1)})"
        ax.plot(drawn + 1, mean, marker=".", color=f"C{number}", label=label)
        figures.band(ax, drawn + 1, low, high, f"C{number}", "all seeds")
    figures.save(figure, path)


def divisor(text: str) -> tuple[str, float]:
    """``keep=4`` as its two parts."""
    method, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not method or not value:
        raise argparse.ArgumentTypeError(f"METHOD=NUMBER is wanted, with no zero, not {text!r}")
    return method, value


def main(arguments: Sequence[str] | None = None) -> None:
    print_in_any_locale()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="the output folder of compare.py")
    parser.add_argument("metric", help="a column of metrics.csv")
    parser.add_argument("--methods", nargs="+", help="default: all that were fine-tuned")
    parser.add_argument(
        "--iterations", nargs="+", metavar="SPAN", help="'4', '7-9', 'last4'; default: six parts"
    )
    parser.add_argument(
        "--divide",
        nargs="+",
        type=divisor,
        default=[],
        metavar="METHOD=NUMBER",
        help="divide a method's values, as a squared error by the square of a success's worth",
    )
    parser.add_argument("--out", type=Path, help="folder for the tables and images")
    given = parser.parse_args(arguments)
    folders = sorted(path for path in given.study.glob("work/*") if path.is_dir())
    if not folders:
        parser.error(f"{given.study / 'work'} holds no task set: is this a study's folder?")
    texts = []
    for folder in folders:
        try:
            runs = read_runs(folder, given.metric, given.methods)
            for method, number in given.divide:
                if method not in runs:
                    parser.error(f"--divide: there is no {method!r}, but {', '.join(runs)}")
                runs[method] = {seed: v / number for seed, v in runs[method].items()}
            table = training_table(runs, given.iterations or equal_spans(runs))
        except (FileNotFoundError, KeyError, ValueError) as error:
            parser.error(str(error.args[0]))
        texts.append(f"## {given.metric}, {folder.name}\n\n{table}\n")
        if given.out:
            name = given.metric.replace("/", "_")
            plot_runs(runs, given.metric, prepare_output(given.out) / f"{name}_{folder.name}.png")
    text = "\n".join(texts)
    if given.out:
        write_text(given.out / f"{given.metric.replace('/', '_')}.md", text)
    print(text)


if __name__ == "__main__":
    main()
