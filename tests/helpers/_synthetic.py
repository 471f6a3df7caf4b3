"""Cells with known true success rates, as a study would have written them."""

import torch

from rftf_torchrl import Cell, Cells, CurvePoint

TASKS = ("window-open", "drawer-open")


def make_cell(method="sparse", seed=0, final=(0.5, 0.25), *, task_set="easy", start=0.2, **changes):
    """A cell whose curve is a straight line over 1000 steps, with 20 final episodes per task."""
    outcomes = {
        task: tuple(number < round(20 * rate) for number in range(20))
        for task, rate in zip(TASKS, final, strict=True)
    }
    ends = tuple(sum(won) / 20 for won in outcomes.values())
    half = tuple((start + end) / 2 for end in ends)
    fields = {
        "task_set": task_set,
        "method": method,
        "seed": seed,
        "tasks": TASKS,
        "digest": f"{method}-{seed}",
        "versions": {"torch": "2.13.0", "python": "3.11"},
        "curve": (
            CurvePoint(0, (start, start)),
            CurvePoint(500, half),
            CurvePoint(1000, ends),
        ),
        "outcomes": outcomes,
        "charged_steps": 0,
        "states": {"training": 10, "evaluation": 40, "shared": 0},
        "seconds": 60.0,
        "cpu_seconds": 30.0,
        "start_seconds": 12.0,
        "command": "python recipes/compare.py study=quick",
        "commit": "abc",
    }
    return Cell(**{**fields, **changes})


def make_cells(difference, seeds=5, *, task_sets=("easy",)):
    """A study of sparse and rftf, rftf better by a true difference, with noise over seeds."""
    generator = torch.Generator().manual_seed(0)
    cells = []
    for name in task_sets:
        for seed in range(seeds):
            luck, *noise = (0.05 * torch.randn(3, generator=generator)).tolist()
            for method, gain in (("sparse", 0.0), ("rftf", difference)):
                base = 0.45 + luck + gain + noise[method == "rftf"]
                final = [min(max(base + shift, 0.0), 1.0) for shift in (0.1, -0.1)]
                cells.append(make_cell(method, seed, final, task_set=name))
    return Cells(cells)
