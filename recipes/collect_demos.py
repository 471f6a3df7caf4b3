"""Record demonstrations of the scripted experts, in Meta-World or in CALVIN.

    python recipes/collect_demos.py output=outputs/run demos.per_task=5

Writes ``<output>/demos`` (or ``demos.path``): ``demos.per_task`` successful episodes a task from
training states, to learn from, and ``demos.held_out_per_task`` from test states, to judge the value
model. ``rftf_torchrl.data`` documents the format.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from tensordict import TensorDict, TensorDictBase

from rftf_torchrl import (
    Demonstrations,
    DemonstrationWriter,
    MetaWorldEnv,
    RunConfig,
    ScriptedExpert,
    derive_seed,
    load_demonstrations,
    progress_bar,
    recipe,
)
from rftf_torchrl.metaworld.tasks import get_task
from rftf_torchrl.recipes.collect_calvin import collect_calvin
from rftf_torchrl.recipes.simulators import is_calvin

logger = logging.getLogger("collect_demos")


def demos_folder(config: RunConfig) -> Path:
    return Path(config.demos.path or Path(config.output, "demos"))


def whole_demos(config: RunConfig) -> Demonstrations:
    """The demonstrations of a recording that was not interrupted."""
    found = load_demonstrations(demos_folder(config))
    if not found.complete:
        raise ValueError(
            f"{found.root} holds the {len(found.episodes)} episodes of a recording that stopped "
            "early. Move or remove the folder, and it is recorded anew; or, to use what there is, "
            'write "complete": true in its demonstrations.json'
        )
    return found


def record_episode(
    env: MetaWorldEnv, expert: ScriptedExpert, episode_seed: int, max_actions: int
) -> tuple[TensorDictBase, bool]:
    current = env.reset(TensorDict({"episode_seed": torch.tensor([episode_seed])}))
    frames, success = [], False
    while not success and len(frames) < max_actions:
        meant = expert.action(env.simulator.state)
        executed = torch.as_tensor(expert.disturb(meant), dtype=torch.float32)
        following = env.step(current.set("action", executed))["next"]
        action = torch.as_tensor(meant, dtype=torch.float32)
        frames.append(current.set("action", action))
        current = following
        success = bool(current["success"])
    frames.append(current.set("action", torch.zeros_like(action)))
    recorded = [frame.select("observation", "instruction", "action") for frame in frames]
    return torch.stack(recorded), success


def collect(config: RunConfig) -> int:
    """Record the demonstrations unless they are there, and return the simulator steps used."""
    root = demos_folder(config)
    if root.exists():
        logger.info("%s has %d episodes already", root, len(whole_demos(config).episodes))
    if is_calvin(config):
        return collect_calvin(config, root)
    if root.exists():
        return 0
    steps = 0
    tasks = [get_task(name) for name in config.env.tasks]
    wanted = {"train": config.demos.per_task, "test": config.demos.held_out_per_task}
    records = [{"id": t.id, "name": t.name, "instruction": t.instruction} for t in tasks]
    max_actions = config.env.horizon * config.env.chunk_size
    with (
        DemonstrationWriter(
            root, tasks=records, simulator="metaworld", action_repeat=config.env.action_repeat
        ) as writer,
        progress_bar(len(tasks) * sum(wanted.values()), "demonstrations") as bar,
    ):
        for task in tasks:
            for split, count in wanted.items():
                env = MetaWorldEnv(
                    task.name,
                    split=split,
                    image_size=config.env.image_size,
                    action_repeat=config.env.action_repeat,
                    horizon=max_actions + 1,
                )
                found, tried = 0, 0
                while found < count:
                    if tried >= 10 * count:
                        raise RuntimeError(
                            f"the expert solved {task.name!r} in {found} of {tried} episodes within"
                            f" {max_actions} actions: raise env.horizon or lower env.action_repeat"
                        )
                    seed = derive_seed(config.seed, "demos", split, tried) % 2**31
                    expert = ScriptedExpert(task, noise=config.demos.noise, seed=seed)
                    episode, success = record_episode(env, expert, seed, max_actions)
                    steps += (len(episode) - 1) * config.env.action_repeat
                    tried += 1
                    if success:
                        found += 1
                        writer.add_episode(
                            episode, task_id=task.id, success=True, goal_seed=seed, split=split
                        )
                        bar.update()
                env.close()
    return steps


@recipe()
def main(config: RunConfig) -> None:
    steps = collect(config)
    logger.info("%d simulator steps; demonstrations in %s", steps, demos_folder(config))


if __name__ == "__main__":
    main()
