"""Everything by one command: demonstrations, cloning, value model, RFTF, before and after.

    python recipes/quickstart.py
    python recipes/quickstart.py seed=1
    python recipes/quickstart.py resume=true         # after a kill
    python recipes/quickstart.py baseline=sparse     # and plain PPO, for comparison (longer)
    python recipes/quickstart.py --config-name calvin    # chains of CALVIN, see calvin.py

Everything goes to ``outputs/quickstart/seed<seed>``: ``report.md``, ``results.json``, the curves,
the value over time, videos before and after, and the files that ``evaluate.py`` and
``finetune.py`` load with the same ``output``. A simulator with an evaluation of its own, like
CALVIN's chains, has that in place of success, values and videos.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from rftf_torchrl import (
    PeakMemory,
    PhaseClock,
    Report,
    RunConfig,
    SuccessReport,
    acting_policy,
    compare_success,
    comparison_table,
    final_value_auc,
    make_simulator,
    markdown_table,
    phase_table,
    plot_value_over_time,
    recipe,
    run_report,
    task_names,
    write_text,
)
from rftf_torchrl.configs.artefacts import load_value_model, need, need_pretrained
from rftf_torchrl.configs.learner import (
    observation_sizes,
    refuse_other_images,
    refuse_refresh,
    refuse_used_folder,
)
from rftf_torchrl.configs.record import CLONING, VALUE, made_already
from rftf_torchrl.configs.run import announced, stage
from rftf_torchrl.configs.validation import ConfigError
from rftf_torchrl.digests import read_record, write_record
from rftf_torchrl.evaluation.report import film_images, protocols
from rftf_torchrl.recipes.collect_demos import collect
from rftf_torchrl.recipes.evaluate import add_values, check_language, film, judge, judged
from rftf_torchrl.recipes.finetune import finetune
from rftf_torchrl.recipes.quickstart_report import (
    PAIRED,
    STEPS,
    draw_curves,
    draw_success,
    kind_of_actions,
    language_section,
    section,
    separation_section,
    success_section,
    value_picture,
)
from rftf_torchrl.recipes.train_bc import clone
from rftf_torchrl.recipes.train_value import train_value

logger = logging.getLogger("quickstart")


def judge_values(
    config: RunConfig, value_model: TensorDictModuleBase, trajectories: TensorDictBase, label: str
) -> dict[str, Any]:
    """Do the values tell this policy's held-out successes from its failures? Draw and measure."""
    values = add_values(trajectories, value_model)
    names = task_names(make_simulator(config.env), config.env.tasks)
    path = Path(config.output, value_picture(label))
    title = f"value over time, {label} policy on held-out states"
    plot_value_over_time(values, path, title, task_names=names)
    return final_value_auc(values, task_names=names)


def compare_reports(
    config: RunConfig, before: Report, after: Report, labels: tuple[str, str]
) -> tuple[dict[str, Any], str]:
    """Two evaluations over the same episodes, and the table."""
    simulator: Any = make_simulator(config.env)
    if hasattr(simulator, "compare"):
        return cast(tuple[dict[str, Any], str], simulator.compare(before, after, labels))
    comparison = compare_success(cast(SuccessReport, before), cast(SuccessReport, after))
    return comparison, comparison_table(comparison, labels)


def about_run(config: RunConfig) -> str:
    """What the simulator says of the run, if anything."""
    simulator: Any = make_simulator(config.env)
    return str(simulator.about(config.folder.demonstrations)) if hasattr(simulator, "about") else ""


def tuned_policy(config: RunConfig, clock: PhaseClock) -> dict[str, Any]:
    """Fine-tune, or read where an earlier run of this folder ended that had the same budget."""
    ended = config.tuned.end
    asked = {"ppo.iterations": config.ppo.iterations, "ppo.env_steps": config.ppo.env_steps}
    found = read_record(ended) if config.resume and ended.is_file() else None
    if found is None or found.get("asked", asked) != asked:
        write_record(ended, {**finetune(config, clock), "asked": asked})
    return read_record(ended)


def after_rollouts(config: RunConfig, steps: int) -> RunConfig:
    """With what the value model's rollouts have left of ``ppo.env_steps``."""
    budget = config.ppo.env_steps
    if budget is None:
        return config
    if steps >= budget:
        raise ValueError(
            f"the value model's rollouts took {steps:,} steps and ppo.env_steps={budget:,}: raise "
            "it, or lower value.rollout_episodes"
        )
    return replace(config, ppo=replace(config.ppo, env_steps=budget - steps))


def entitled(config: RunConfig) -> None:
    """Stop before anything is made where fine-tuning would be refused."""
    refuse_refresh(config)
    refuse_other_images(config)
    if config.name == "sparse":
        raise ConfigError(
            "reward=sparse: what a quick start calls RFTF needs a dense reward. For plain PPO "
            "beside it set baseline=sparse; plain PPO alone is rftf finetune reward=sparse"
        )
    cloned, recorded = config.cloning.per_task or 0, config.demos.per_task
    if config.demos.path is None and cloned > recorded:
        raise ConfigError(
            f"cloning.per_task={cloned}: demos.per_task={recorded} records fewer of each task"
        )
    for run in (config, config.plain_ppo) if config.baseline else (config,):
        refuse_used_folder(run)
    simulator = make_simulator(config.env)
    need(
        config,
        demos=config.demos.path is not None and hasattr(simulator, "record"),
        policy=config.policy.path is not None,
        value_model=config.value.path is not None,
    )
    need_pretrained(config)


@stage(
    "quickstart",
    "quick start",
    about=lambda config: (
        f"demonstrations, cloning, value model, fine-tuning and evaluation on "
        f"{len(config.env.tasks)} tasks in {config.env.kind}, seed {config.seed}"
    ),
    writes=lambda config: Path(config.output, "report.md"),
    entitled=entitled,
)
def quickstart(config: RunConfig, memory: PeakMemory) -> dict[str, Any]:
    folder = Path(config.output)
    spent = folder / "seconds.json"
    if not config.resume:
        spent.unlink(missing_ok=True)
    clock = PhaseClock(spent)

    with clock("demonstrations"):
        demo_steps = collect(config)
    with clock("behaviour cloning"):
        if config.policy.path is None and not made_already(config, config.folder.policy, CLONING):
            clone(config)
    cloned, spec = acting_policy(config, config.folder.policy)
    with clock("value model"):
        if config.value.path is not None:
            value_report = {"simulator_steps": 0}
        else:
            if not made_already(config, config.folder.value_model, VALUE):
                train_value(config)
            value_report = read_record(config.folder.value_training)
    value_model = load_value_model(config, observation_sizes(config, spec).state_dim)

    separation: dict[str, dict[str, Any]] = {}
    policies = {"cloned": cloned}

    def evaluated(label: str) -> Report:
        about = f"the {label} policy, {judged(config)}"
        with clock("evaluation"), announced("evaluation", about, folder):
            report, trajectories = judge(config, policies[label], spec, label, folder)
            if trajectories is not None:
                separation[label] = judge_values(config, value_model, trajectories, label)
            return report

    reports, used = {"cloned": evaluated("cloned")}, {}
    runs = {"RFTF": after_rollouts(config, value_report["simulator_steps"])}
    if config.baseline == "sparse":
        runs["sparse"] = config.plain_ppo
    for label, run in runs.items():
        ended = tuned_policy(run, clock)
        used[label] = ended["env_steps"]
        if run.tuned.value_model.is_file():
            learned = replace(run.value, path=str(run.tuned.value_model))
            value_model = load_value_model(replace(run, value=learned))
        policies[label], _ = acting_policy(config, run.tuned.policy)
        reports[label] = evaluated(label)
    used["RFTF"] += value_report["simulator_steps"]

    pairs = [("cloned", label) for label in runs]
    if "sparse" in runs:
        pairs.append(("sparse", "RFTF"))
    compared = {
        (before, after): compare_reports(config, reports[before], reports[after], (before, after))
        for before, after in pairs
    }
    results: dict[str, Any] = {
        "about": about_run(config),
        "seed": config.seed,
        reports["cloned"].name: {label: report.to_dict() for label, report in reports.items()},
        "comparisons": {f"{after} - {before}": c for (before, after), (c, _) in compared.items()},
        "simulator_steps": {"demonstrations": demo_steps, **used},
        "value_model": value_report,
    }
    sections = {
        f"{after} against {before}": section(PAIRED, table)
        for (before, after), (_, table) in compared.items()
    }
    if separation:
        success = cast(dict[str, SuccessReport], reports)
        about = "curves, own and swapped instructions, videos"
        with clock("report"), announced("report", about, folder):
            draw_success(success, folder, kind_of_actions(config))
            curve = draw_curves(runs, success["cloned"])
            language = check_language(config, policies["RFTF"], spec)
            films = film(
                config, policies["RFTF"], spec, value_model, folder / "videos", before=cloned
            )
        results |= {"value_separation": separation, "language": language}
        sections = {
            "Success on held-out states": success_section(success, kind_of_actions(config)),
            **sections,
            "Success while training": curve,
            "Do the values tell success from failure?": separation_section(separation),
            "Does the policy follow the instruction?": language_section(language),
            "Before and after": film_images(films, folder),
        }
    else:
        name = reports["cloned"].name.capitalize()
        sections |= {"Success while training": draw_curves(runs, None)}
        sections |= {f"{name} of the {label} policy": r.markdown() for label, r in reports.items()}
    results["seconds"] = {**clock.seconds, "total": sum(clock.seconds.values())}
    results["peak_memory_gib"] = memory.gib
    write_record(folder / "results.json", results)
    steps = [[name, f"{count:,}"] for name, count in results["simulator_steps"].items()]
    processes = "all processes together" if memory.whole_tree else "the main process"
    sections |= {
        "Simulator steps": section(STEPS, markdown_table(["stage", "steps"], steps)),
        "Time": phase_table(clock.seconds),
        "Peak memory": f"{memory.gib:.2f} GiB in {processes}, since the last start",
    }
    lead = " ".join(filter(None, [protocols(reports), results["about"]]))
    report = run_report(f"Quick start, seed {config.seed}", sections, lead)
    write_text(folder / "report.md", report)
    logger.info("\n%s", report)
    return results


@recipe("quickstart")
def main(config: RunConfig) -> None:
    with PeakMemory() as memory:
        quickstart(config, memory)


if __name__ == "__main__":
    main()
