"""Report whether what PPO learns from some episodes holds for others, before a long run.

    python recipes/update_report.py output=outputs/run                    # RFTF and plain PPO
    python recipes/update_report.py output=outputs/run reward=sparse      # plain PPO alone
    python recipes/update_report.py output=outputs/run ppo.episodes_per_task=40

Plays batches of training episodes with the cloned policy: some in which only the critic learns, one
to update on as an iteration of ``finetune.py`` does, and one held out. On its own episodes an
update always gains, even if it learned only chance. What it gains on the held-out ones, in
*success*, it has learned: the yardstick is the same for every arm, and the difference of two is
paired. If that is nothing, more iterations like this one move the policy without aim. The value
model stays as it was trained (no ``value.refresh_steps``).

Writes ``<output>/update_report.json``.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase

from rftf_torchrl import (
    RunConfig,
    acting_policy,
    autocast,
    derive_seed,
    keys,
    make_gae,
    make_simulator,
    markdown_table,
    progress_bar,
    recipe,
    resolve_device,
    seed_everything,
    surrogate_gain,
    write_json,
)
from rftf_torchrl.configs.artefacts import need
from rftf_torchrl.configs.episodes import episode_collector
from rftf_torchrl.configs.learner import Learner, make_learner, uses_value_model
from rftf_torchrl.configs.run import stage
from rftf_torchrl.recipes.finetune import add_advantages, training_episodes, update

logger = logging.getLogger("update_report")


def play_batches(config: RunConfig, count: int) -> list[TensorDictBase]:
    """The episodes of the first iterations, all of them of the cloned policy."""
    policy, spec = acting_policy(config, config.folder.policy)
    played = []
    with (
        episode_collector(config, "train", policy, spec) as collector,
        progress_bar(range(count), "episodes to learn from", unit="batches") as bar,
    ):
        for number in bar:
            seed = derive_seed(config.seed, "noise", number)
            with autocast(resolve_device(config.device), config.precision):
                played.append(collector.collect(training_episodes(config, number), seed=seed))
    return played


def success_advantage(config: RunConfig, learner: Learner, data: TensorDictBase) -> torch.Tensor:
    """Discounted success to come less what plain PPO's critic expects, standardised, [N]."""
    gae = make_gae(gamma=config.ppo.gamma, lmbda=1.0, average_gae=True, reward_key=keys.REWARD)
    advantages = replace(learner.advantages, gae=gae)
    data = add_advantages(config, replace(learner, advantages=advantages), data.clone())
    advantage: torch.Tensor = data[keys.ADVANTAGE]
    return advantage.reshape(-1)


def measured(gain: tuple[float, float, float]) -> dict[str, Any]:
    return {"gain": gain[0], "interval": list(gain[1:])}


@stage(
    "update_report",
    "report on an update",
    about=lambda config: (
        f"{config.ppo.critic_warmup + 2} batches of {config.ppo.episodes_per_task} episodes of "
        f"each of {len(config.tuned_tasks)} tasks with {config.folder.policy}"
    ),
    writes=lambda config: Path(config.output, "update_report.json"),
    entitled=lambda config: need(config, policy=True, value_model=uses_value_model(config)),
)
def report_update(config: RunConfig) -> dict[str, Any]:
    device = resolve_device(config.device)
    plain = replace(config.plain_ppo, critic="learned")
    arms = {"sparse": plain}
    if config.name != "sparse":
        arms[config.name] = config
    elif config.critic != "learned":
        arms[f"sparse, critic={config.critic}"] = config
    warmup = config.ppo.critic_warmup
    played = [data.to(device) for data in play_batches(config, warmup + 2)]
    held_out = played[-1]
    found, ratios = {}, {}
    for name, arm in arms.items():
        seed_everything(derive_seed(config.seed, "finetune"))
        learner = make_learner(arm, device)
        parts = learner.loss, learner.optimizer
        for number, data in enumerate(played[:warmup]):
            if learner.critic is not None:
                batch = add_advantages(arm, learner, data.clone())
                update(arm, *parts, batch, number, train_policy=False)
        # Before the update: this writes the log-probabilities that ratios are taken from.
        batch, others = (add_advantages(arm, learner, data.clone()) for data in played[warmup:])
        metrics = update(arm, *parts, batch, warmup, train_policy=True)
        if arm is plain:
            advantage = success_advantage(plain, learner, held_out)
        with autocast(device, config.precision):
            ratios[name] = learner.loss.log_ratio(others).float()
            own = learner.loss.log_ratio(batch).float(), batch[keys.ADVANTAGE].reshape(-1)
        episode = others[keys.TRAJECTORY].reshape(-1)
        found[name] = {
            "own": measured(surrogate_gain(*own, batch[keys.TRAJECTORY].reshape(-1))),
            "held_out": measured(surrogate_gain(ratios[name], advantage, episode)),
            "kl": float((ratios[name].exp() - 1 - ratios[name]).mean()),
            "clip_fraction": metrics["clip_fraction"],
        }
    ends = held_out["next", "done"]
    executed = sum(int(data["next", "executed"].sum()) for data in played)
    report = {
        "arms": found,
        "value_model": "as trained: it does not go on learning here, unlike in fine-tuning",
        "episodes": int(ends.sum()),
        "success": float(held_out["next", keys.SUCCESS][ends].float().mean()),
        "simulator_steps": make_simulator(config.env).steps_per_action * executed,
    }
    if len(arms) > 1:
        other = ratios.pop("sparse")
        (name,) = ratios
        gain = surrogate_gain(ratios[name], advantage, episode, other_log_ratio=other)
        report["difference"] = measured(gain)
    write_json(Path(config.output, "update_report.json"), report)
    logger.info("%s", report_table(report))
    return report


def report_table(report: dict[str, Any]) -> str:
    def shown(part: dict[str, Any]) -> str:
        low, high = part["interval"]
        return f"{part['gain']:+.4f} ({low:+.4f} to {high:+.4f})"

    rows = [
        [name, shown(arm["own"]), shown(arm["held_out"]), f"{arm['kl']:.3f}"]
        for name, arm in report["arms"].items()
    ]
    if "difference" in report:
        rows.append(["difference", "", shown(report["difference"]), ""])
    header = ["arm", "gain on its own episodes", "on held-out ones, in success", "divergence, nats"]
    return (
        "gain a decision, in standard deviations of the advantage, 95% intervals; "
        f"{report['episodes']} episodes per batch, {report['success']:.1%} successful:\n\n"
        + markdown_table(header, rows)
    )


@recipe()
def main(config: RunConfig) -> None:
    report_update(config)


if __name__ == "__main__":
    main()
