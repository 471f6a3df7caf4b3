"""The main job from one command: demonstrations, cloning, value model, RFTF, before and after.

    python recipes/quickstart.py
    python recipes/quickstart.py seed=1
    python recipes/quickstart.py resume=true         # after a kill
    python recipes/quickstart.py baseline=sparse     # a plain PPO run beside it (longer)

Everything lands in ``outputs/quickstart/seed<seed>``: ``report.md``, ``results.json``, the curves,
the value over time, videos before and after, and the files that ``evaluate.py`` and
``finetune.py`` load with the same ``output``.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from pathlib import Path

from tensordict import TensorDictBase

from rftf_torchrl import (
    PeakMemory,
    PhaseClock,
    RewardConfig,
    RunConfig,
    SuccessReport,
    TemporalValueModel,
    acting_policy,
    compare_success,
    comparison_table,
    final_value_auc,
    language_table,
    markdown_table,
    phase_table,
    plot_learning_curve,
    plot_success_bars,
    plot_value_over_time,
    read_metrics,
    recipe,
    run_report,
    write_json_atomic,
    write_text,
)
from rftf_torchrl.recipes.collect_demos import collect
from rftf_torchrl.recipes.evaluate import add_values, check_language, film, run_held_out
from rftf_torchrl.recipes.finetune import finetune, refuse_used_folder, run_name
from rftf_torchrl.recipes.simulators import task_names
from rftf_torchrl.recipes.train_bc import clone, policy_file
from rftf_torchrl.recipes.train_value import train_value, value_file

logger = logging.getLogger("quickstart")


def success_table(reports: dict[str, SuccessReport]) -> str:
    """A row a task and one for all: rate and 95% Wilson interval of every policy."""
    header = ["task"]
    for label in reports:
        header += [label, "95% interval"]
    first = next(iter(reports.values()))
    rows = []
    for name in [*first.tasks, "all"]:
        row = [name]
        for report in reports.values():
            rate = report.pooled if name == "all" else report.tasks[name]
            low, high = rate.interval
            row += [f"{rate.rate:.1%}", f"{low:.1%} to {high:.1%}"]
        rows.append(row)
    return markdown_table(header, rows)


def separation_table(separation: dict[str, dict]) -> str:
    """Area under the ROC curve of the final value, per policy, over tasks with both outcomes."""
    rows = [
        [label, f"{found['final_auc']:.2f}", f"{found['final_margin']:+.2f}"]
        for label, found in separation.items()
    ]
    header = ["held-out episodes of", "ROC-AUC of the final value", "margin of successes"]
    return markdown_table(header, rows)


def judge_values(
    config: RunConfig, value_model: TemporalValueModel, trajectories: TensorDictBase, label: str
) -> dict:
    """Do the values tell this policy's held-out successes from its failures? Draw and measure."""
    values = add_values(trajectories, value_model)
    names = task_names(config)
    file = f"value_over_time_{label.replace(' ', '_')}.png"
    title = f"value over time, {label} policy on held-out states"
    plot_value_over_time(values, Path(config.output, file), title, task_names=names)
    return final_value_auc(values, task_names=names)


def quickstart(config: RunConfig, memory: PeakMemory) -> dict:
    refuse_used_folder(config)
    folder = Path(config.output)
    clock, started = PhaseClock(), time.perf_counter()

    with clock("demonstrations"):
        demo_steps = collect(config)
    with clock("behaviour cloning"):
        if not (config.resume and policy_file(config).is_file()):
            clone(config)
    cloned, spec = acting_policy(config, policy_file(config))
    with clock("value model"):
        if not (config.resume and value_file(config).is_file()):
            train_value(config)
    value_model = TemporalValueModel.load(value_file(config))
    value_report = json.loads(Path(config.output, "value", "report.json").read_text())
    with clock("evaluation"):
        before, trajectories = run_held_out(config, cloned, spec, "cloned")
        separation = {"cloned": judge_values(config, value_model, trajectories, "cloned")}
        del trajectories

    runs = {"RFTF": config}
    if config.baseline == "sparse":
        runs["sparse PPO"] = replace(config, reward=RewardConfig(dense_weight=0.0))
    reports, tuned, used = {"cloned": before}, {}, {}
    for label, run in runs.items():
        ended = finetune(run, clock)
        used[label] = ended["env_steps"]
        tuned[label], _ = acting_policy(config, ended["policy"])
        with clock("evaluation"):
            reports[label], trajectories = run_held_out(run, tuned[label], spec, label)
            separation[label] = judge_values(config, value_model, trajectories, label)
            del trajectories
    used["RFTF"] += value_report["simulator_steps"]

    with clock("report"):
        language = check_language(config, tuned["RFTF"], spec)
        comparisons = {
            f"{label} - cloned": compare_success(before, reports[label]) for label in runs
        }
        if "sparse PPO" in runs:
            comparisons["RFTF - sparse PPO"] = compare_success(
                reports["sparse PPO"], reports["RFTF"]
            )
        curves = {
            label: read_metrics(Path(folder, run_name(run), "metrics.csv"))
            for label, run in runs.items()
        }
        plot_learning_curve(
            curves["RFTF"],
            folder / "learning_curve.png",
            sparse=curves.get("sparse PPO"),
            baseline={
                "success": before.mean_rate,
                **{f"success/{task}": rate.rate for task, rate in before.tasks.items()},
            },
            labels=("RFTF", "sparse PPO"),
            window=8,
            title="success while training: fresh training states, sampled actions",
        )
        plot_success_bars(
            before, reports["RFTF"], folder / "success.png", labels=("cloned", "RFTF")
        )
        film(config, tuned["RFTF"], spec, value_model, folder / "videos", before=cloned)

    results = {
        "seed": config.seed,
        "success": {label: report.to_dict() for label, report in reports.items()},
        "comparisons": comparisons,
        "simulator_steps": {"demonstrations": demo_steps, **used},
        "value_model": value_report,
        "value_separation": separation,
        "language": language,
        "seconds": {**clock.seconds, "total": time.perf_counter() - started},
        "peak_memory_gib": memory.gib,
    }
    write_json_atomic(folder / "results.json", results)
    steps_rows = [[name, f"{steps:,}"] for name, steps in results["simulator_steps"].items()]
    processes = "all processes together" if memory.whole_tree else "the main process"
    report = run_report(
        f"Quick start, seed {config.seed}",
        {
            "Success on held-out states": success_table(reports),
            "Differences on the same episodes": "\n\n".join(
                f"{name}\n\n{comparison_table(comparison)}"
                for name, comparison in comparisons.items()
            ),
            "Do the values tell success from failure?": separation_table(separation),
            "Does the policy listen?": language_table(language) if language else "",
            "Simulator steps": markdown_table(["stage", "steps"], steps_rows),
            "Time": phase_table(clock.seconds),
            "Peak memory": f"{memory.gib:.2f} GiB in {processes}",
        },
    )
    write_text(folder / "report.md", report)
    logger.info("\n%s\nreport, plots and videos: %s", report, folder)
    return results


@recipe("quickstart")
def main(config: RunConfig) -> None:
    with PeakMemory() as memory:
        quickstart(config, memory)


if __name__ == "__main__":
    main()
