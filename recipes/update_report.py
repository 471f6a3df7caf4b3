"""Report whether what PPO learns from some episodes holds for others, before a long run.

    python recipes/update_report.py output=outputs/run reward=sparse
    python recipes/update_report.py output=outputs/run ppo.episodes_per_task=40

Plays two batches of training episodes with the cloned policy (and those before them in which only
the critic learns), updates on the first as an iteration of ``finetune.py`` does, and measures the
surrogate objective's gain on both. The first gains whatever it holds, chance included. If the
second gains nothing, more iterations like this one move the policy without aim: give an iteration
more episodes, or learn what is lacking in another way.

Writes ``<output>/update_report.json``.
"""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
from finetune import (
    add_advantages,
    make_buffer,
    make_learner,
    simulator_steps,
    training_episodes,
    update,
)
from simulators import episode_collector

from rftf_torchrl import keys
from rftf_torchrl.configs import RunConfig, register, start_run
from rftf_torchrl.evaluation import markdown_table
from rftf_torchrl.functional import surrogate_gain
from rftf_torchrl.training import (
    derive_seed,
    progress_bar,
    resolve_device,
    seed_everything,
    write_json_atomic,
)

logger = logging.getLogger("update_report")


def report_update(config: RunConfig) -> dict:
    seed_everything(derive_seed(config.seed, "finetune"))
    device = resolve_device(config.device)
    learner = make_learner(config, device)
    warmup = config.ppo.critic_warmup if learner.critic is not None else 0
    played = []
    with (
        episode_collector(config, "train", learner.policy, learner.spec) as collector,
        progress_bar(range(warmup + 2), "batches") as bar,
    ):
        for number in bar:
            seed = derive_seed(config.seed, "noise", number)
            played.append(collector.collect(training_episodes(config, number), seed=seed))
    buffer = make_buffer(config, device)
    arguments = config, learner.loss, learner.optimizer, buffer
    for number, data in enumerate(played[:warmup]):
        batch = add_advantages(config, learner, data.to(device))
        update(*arguments, batch, number, train_policy=False)
    batches = {
        name: add_advantages(config, learner, data.to(device))
        for name, data in zip(("updated on", "held out"), played[warmup:], strict=True)
    }
    metrics = update(*arguments, batches["updated on"], warmup, train_policy=True)

    gains = {}
    for name, batch in batches.items():
        ratio = learner.loss.log_ratio(batch, minibatch=config.ppo.minibatch)
        advantage, episode = batch[keys.ADVANTAGE].reshape(-1), batch[keys.TRAJECTORY].reshape(-1)
        gain, low, high = surrogate_gain(ratio, advantage, episode)
        ends = batch["next", "done"]
        gains[name] = {
            "gain": gain,
            "interval": [low, high],
            "kl": float((ratio.exp() - 1 - ratio).mean()),
            "episodes": int(ends.sum()),
            "success": float(batch["next", keys.SUCCESS][ends].float().mean()),
        }
    report = {
        "batches": gains,
        "clip_fraction": metrics["clip_fraction"],
        "simulator_steps": sum(simulator_steps(config, data) for data in played),
    }
    write_json_atomic(Path(config.output, "update_report.json"), report)
    rows = [
        [
            name,
            str(row["episodes"]),
            f"{row['success']:.1%}",
            f"{row['gain']:+.4f} ({row['interval'][0]:+.4f} to {row['interval'][1]:+.4f})",
            f"{row['kl']:.3f}",
        ]
        for name, row in gains.items()
    ]
    header = ["episodes", "number", "success", "gain, 95% interval", "divergence, nats"]
    table = markdown_table(header, rows)
    logger.info("gain in standard deviations of the advantage, a decision:\n\n%s", table)
    return report


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(raw) -> None:
    report_update(start_run(raw, "update_report"))


if __name__ == "__main__":
    register()
    main()
