"""Record demonstrations with a scripted expert, in any environment that takes single actions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.envs import EnvBase

from rftf_torchrl import keys
from rftf_torchrl.data.format import Task
from rftf_torchrl.data.writer import DemonstrationWriter
from rftf_torchrl.envs.episodes import Split
from rftf_torchrl.envs.simulator import Recording, check_seeds
from rftf_torchrl.envs.takeover import Takeover
from rftf_torchrl.errors import SimulatorCrashedError, UserError
from rftf_torchrl.training.progress import progress_bar
from rftf_torchrl.training.seeding import derive_seed

logger = logging.getLogger(__name__)

Expert = Callable[[EnvBase], tuple[np.ndarray, np.ndarray]]
"""From an environment in some state to the action that is meant, and the one to carry out."""


def record_episode(
    env: EnvBase,
    expert: Expert,
    episode_seed: int,
    max_actions: int,
    takeover: Takeover | None = None,
    decisions: int = 0,
) -> tuple[TensorDictBase, bool, int]:
    """Let an expert play one episode.

    Args:
        env: takes a plain ``"action"`` [A]; its reset takes ``"episode_seed"``.
        expert: see :data:`Expert`.
        episode_seed: the episode.
        max_actions: actions after which it ends without success.
        takeover: a policy that acts before the expert.
        decisions: how many it takes.

    Returns:
        The expert's frames [T + 1] with the actions before noise, zero in the last one; whether it
        did the task; and the number of actions of policy and expert.
    """
    current = env.reset(TensorDict({"episode_seed": torch.tensor([episode_seed])}))
    before = 0
    if takeover is not None:
        current, before = takeover.act(env, current, decisions)
    action = torch.zeros(env.action_spec.shape)
    frames: list[TensorDictBase] = []
    success, ended = False, bool(current["done"])
    while not ended and len(frames) < max_actions:
        meant, executed = expert(env)
        action = torch.as_tensor(executed, dtype=torch.float32)
        following = env.step(current.set("action", action))["next"]
        frames.append(current.set("action", torch.as_tensor(meant, dtype=torch.float32)))
        current = following
        success, ended = bool(current[keys.SUCCESS]), bool(current["done"])
    frames.append(current.set("action", torch.zeros_like(action)))
    recorded = [frame.select("observation", "instruction", "action") for frame in frames]
    return torch.stack(recorded), success, before + len(frames) - 1


def record_demonstrations(
    recording: Recording,
    tasks: Sequence[Task],
    make_env: Callable[[Task, Split], EnvBase],
    make_expert: Callable[[Task, int], Expert],
    *,
    simulator: str,
    max_actions: int,
    steps_per_action: int = 1,
) -> int:
    """Record the successful episodes of an expert; a folder that is there is left as it is.

    Args:
        recording: how many, and where.
        tasks: the tasks.
        make_env: makes the environment of a task and a split, with plain actions and a horizon
            above ``max_actions``, and above twice that for a policy that acts first.
        make_expert: makes the expert of a task, with a seed for its noise.
        simulator: the simulator's kind, which is recorded.
        max_actions: actions of an episode.
        steps_per_action: simulator steps of an action.

    Returns:
        The simulator steps used, those of failed episodes included.

    Raises:
        UserError: if fewer than one in ten episodes succeeds.
        ValueError: if an environment ignores its episodes' seeds.
    """
    if recording.folder.exists():
        return 0
    steps = 0
    wanted: dict[Split, int] = {
        "train": recording.per_task,
        "test": recording.held_out_per_task,
    }
    with (
        DemonstrationWriter(
            recording.folder, tasks=tasks, simulator=simulator, action_repeat=steps_per_action
        ) as writer,
        progress_bar(len(tasks) * sum(wanted.values()), "demonstrations", unit="episodes") as bar,
    ):
        for task in tasks:
            for split, count in wanted.items():
                env = make_env(task, split)
                check_seeds(env, task.name)
                found, tried = 0, 0
                while found < count:
                    if tried >= 10 * count:
                        raise UserError(
                            f"the expert solved {task.name!r} in {found} of {tried} episodes within"
                            f" {max_actions} actions: raise env.horizon, or leave the task out of "
                            "env.tasks"
                        )
                    seed = derive_seed(recording.seed, "demos", split, tried) % 2**31
                    expert = make_expert(task, seed)
                    takeover = recording.takeover if split == "train" else None
                    decisions = 0 if takeover is None else takeover.decisions(seed)
                    tried += 1
                    try:
                        episode, success, actions = record_episode(
                            env, expert, seed, max_actions, takeover, decisions
                        )
                    except SimulatorCrashedError as error:  # in a reset
                        logger.warning("%s; the episode of seed %d is left out", error, seed)
                        continue
                    steps += actions * steps_per_action
                    writer.simulator_steps = steps
                    if success:
                        found += 1
                        writer.add_episode(
                            episode,
                            task_id=task.id,
                            success=True,
                            goal_seed=seed,
                            split=split,
                            takeover=decisions,
                        )
                        bar.update()
                env.close()
    return steps
