"""CALVIN from one command: expert demonstrations, cloning, value model, RFTF, chains of five tasks.

    python recipes/calvin.py                                   # D->D from the simulator's state
    python recipes/calvin.py demos.scenes=ABC                  # ABC->D
    python recipes/calvin.py env=calvin device=cuda            # from pixels
    python recipes/calvin.py --config-name calvin_pixels       # from pixels, for a CPU
    python recipes/calvin.py baseline=sparse                   # plain PPO beside it
    python recipes/calvin.py resume=true                       # after a kill

Needs calvin_env, see the README. Everything lands in ``outputs/calvin/seed<seed>``: ``report.md``,
``results.json``, the chains of every policy, curves, and the files of the single recipes.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from pathlib import Path

from rftf_torchrl import (
    PeakMemory,
    PhaseClock,
    RewardConfig,
    RunConfig,
    acting_policy,
    chain_comparison_table,
    compare_chains,
    markdown_table,
    phase_table,
    recipe,
    require_calvin_env,
    run_report,
    write_json_atomic,
    write_text,
)
from rftf_torchrl.recipes.collect_demos import collect
from rftf_torchrl.recipes.evaluate import run_chains
from rftf_torchrl.recipes.finetune import finetune, refuse_used_folder, run_name
from rftf_torchrl.recipes.train_bc import clone, policy_file
from rftf_torchrl.recipes.train_value import train_value, value_file

logger = logging.getLogger("calvin")


def tuned_policy(config: RunConfig, clock: PhaseClock) -> dict:
    """Fine-tune, or read where an earlier run of this folder ended."""
    ended = Path(config.output, run_name(config), "ended.json")
    if not (config.resume and ended.is_file()):
        write_json_atomic(ended, finetune(config, clock))
    return json.loads(ended.read_text())


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


def calvin(config: RunConfig, memory: PeakMemory) -> dict:
    require_calvin_env()
    refuse_used_folder(config)
    folder = Path(config.output)
    clock, started = PhaseClock(), time.perf_counter()
    with clock("demonstrations"):
        demo_steps = collect(config)
    with clock("behaviour cloning"):
        if not (config.resume and policy_file(config).is_file()):
            clone(config)
    cloned, spec = acting_policy(config, policy_file(config))
    with clock("chains"):
        reports = {"cloned": run_chains(config, cloned, spec, "cloned", folder)}
    with clock("value model"):
        if not (config.resume and value_file(config).is_file()):
            train_value(config)
    value_report = json.loads(Path(folder, "value", "report.json").read_text())

    runs = {"RFTF": after_rollouts(config, value_report["simulator_steps"])}
    if config.baseline == "sparse":
        runs["sparse"] = replace(config, reward=RewardConfig(dense_weight=0.0))
    used = {}
    for label, run in runs.items():
        ended = tuned_policy(run, clock)
        used[label] = ended["env_steps"]
        policy, _ = acting_policy(config, ended["policy"])
        with clock("chains"):
            reports[label] = run_chains(run, policy, spec, label, folder)
    used["RFTF"] += value_report["simulator_steps"]

    pairs = [("cloned", label) for label in runs]
    if "sparse" in runs:
        pairs.append(("sparse", "RFTF"))
    comparisons = {pair: compare_chains(reports[pair[0]], reports[pair[1]]) for pair in pairs}
    results = {
        "seed": config.seed,
        "chains": {label: report.to_dict() for label, report in reports.items()},
        "comparisons": {f"{after} - {before}": c for (before, after), c in comparisons.items()},
        "simulator_steps": {"demonstrations": demo_steps, **used},
        "value_model": value_report,
        "seconds": {**clock.seconds, "total": time.perf_counter() - started},
        "peak_memory_gib": memory.gib,
    }
    write_json_atomic(folder / "results.json", results)
    steps = [[name, f"{count:,}"] for name, count in results["simulator_steps"].items()]
    sections = {
        f"{after} against {before}, the same chains": chain_comparison_table(
            comparison, (before, after)
        )
        for (before, after), comparison in comparisons.items()
    }
    sections |= {f"Chains of the {label} policy": r.markdown() for label, r in reports.items()}
    sections |= {
        "Simulator steps": markdown_table(["stage", "steps"], steps),
        "Time": phase_table(clock.seconds),
        "Peak memory": f"{memory.gib:.2f} GiB",
    }
    report = run_report(f"CALVIN, seed {config.seed}", sections)
    write_text(folder / "report.md", report)
    logger.info("\n%s\nreport and plots: %s", report, folder)
    return results


@recipe("calvin")
def main(config: RunConfig) -> None:
    with PeakMemory() as memory:
        calvin(config, memory)


if __name__ == "__main__":
    main()
