"""Run episodes with images, and record what fine-tuning changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type, step_mdp

from rftf_torchrl import keys
from rftf_torchrl.envs.episodes import Episode
from rftf_torchrl.evaluation.overlay import overlay_value
from rftf_torchrl.evaluation.trajectories import succeeded
from rftf_torchrl.evaluation.video import enlarge, pane_width, side_by_side, write_video
from rftf_torchrl.nets.evaluate_states import eval_mode, policy_device, values_of_states

logger = logging.getLogger(__name__)


def render_rollout(
    env: EnvBase,
    policy: TensorDictModuleBase,
    episode_seed: int,
    size: int = 240,
    deterministic: bool = True,
) -> tuple[Tensor, TensorDictBase]:
    """Run one episode and take an image of its start and after each action.

    Args:
        env: an environment of batch size [] whose reset takes ``"episode_seed"`` and whose
            ``picture(size)`` is uint8 [3, size, size]. If it has no
            ``watch(function)``, which has a function called after each action, the images are
            taken after each decision.
        policy: the policy, on any device; called on batches of one. If it has a method ``reset()``,
            that is called first.
        episode_seed: the episode.
        size: edge of the images in pixels.
        deterministic: the policy's mean action instead of a sample.

    Returns:
        The images, uint8 [F, 3, size, size], and the trajectory [T] with ``("collector",
        "traj_ids")`` = 0 and ``"pictures"``, int64 [T]: how many were taken during each decision,
        of which the last shows the next state.
    """
    mode = ExplorationType.DETERMINISTIC if deterministic else ExplorationType.RANDOM
    if callable(forget := getattr(policy, "reset", None)):
        forget()
    current = env.reset(TensorDict({"episode_seed": torch.tensor([episode_seed])}))
    current = current.exclude("action", "vla_action")
    frames, steps, counts = [env.picture(size)], [], []
    watched = hasattr(env, "watch")
    if watched:
        env.watch(lambda: frames.append(env.picture(size)))
    done = False
    with torch.inference_mode(), set_exploration_type(mode), eval_mode(policy):
        while not done:
            decision = policy(current.unsqueeze(0).to(policy_device(policy))).squeeze(0)
            before = len(frames)
            step = env.step(decision.to("cpu"))
            if not watched:
                frames.append(env.picture(size))
            counts.append(len(frames) - before)
            steps.append(step)
            done = step["next", "done"].item()
            current = step_mdp(step, exclude_action=True).exclude(
                "vla_action", keys.LOC, keys.SCALE, keys.LOGITS
            )
    if watched:
        env.watch(None)
    trajectory = TensorDict.stack(steps).contiguous()
    trajectory.set("pictures", torch.tensor(counts))
    trajectory.set(keys.TRAJECTORY, torch.zeros(len(steps), dtype=torch.int64))
    return torch.stack(frames), trajectory


def record_videos(
    make_env: Callable[[Episode], EnvBase],
    policy: TensorDictModuleBase,
    episodes: Sequence[Episode],
    folder: str | Path,
    *,
    before: TensorDictModuleBase | None = None,
    value_model: TensorDictModuleBase | None = None,
    instruction_of: Callable[[str], str] | None = None,
    labels: tuple[str, str] = ("before", "after"),
    size: int = 240,
    fps: float = 10,
    deterministic: bool = True,
) -> list[Path]:
    """Record videos of episodes, each with its instruction, its outcome and the value over time.

    Args:
        make_env: the environment of an episode's scene, see :func:`render_rollout`; each is closed
            after its episode.
        policy: the policy.
        episodes: what to record.
        folder: where the videos go, as ``00-task-seed.mp4`` and ``.webp``, see
            :func:`write_video`; it is made if missing.
        before: an earlier policy to show on the left.
        value_model: draws its values below the images.
        instruction_of: the instruction of a task whose episode names none; by default the task's
            name.
        labels: names of the earlier and the present policy.
        size: edge of the images in pixels; smaller videos than 480 pixels are enlarged.
        fps: actions per second.
        deterministic: mean actions instead of samples.

    Returns:
        The MP4 files, in the order of `episodes`; an episode whose simulator crashed has none.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    policies = [("", policy)] if before is None else [*zip(labels, (before, policy), strict=True)]
    paths = []
    for number, episode in enumerate(episodes):
        title = episode.instruction
        if title is None:
            title = episode.task if instruction_of is None else instruction_of(episode.task)
        films = []
        env = make_env(episode)
        try:
            for label, actor in policies:
                frames, trajectory = render_rollout(env, actor, episode.seed, size, deterministic)
                if trajectory.get(("next", keys.CRASHED), torch.zeros(1)).any():
                    logger.warning(
                        "the episode of task %r with seed %d crashed and is not recorded",
                        episode.task,
                        episode.seed,
                    )
                    break
                films.append(
                    overlay_value(
                        enlarge(frames, pane_width(len(policies))),
                        None if value_model is None else _values(value_model, trajectory),
                        success=succeeded(trajectory),
                        title=title,
                        label=label,
                    )
                )
        finally:
            env.close()
        if len(films) < len(policies):
            continue
        film = films[0] if len(films) == 1 else side_by_side(*films)
        name = f"{number:02d}-{episode.task}-{episode.seed}.mp4"
        paths.append(write_video(film, folder / name, fps))
    return paths


def _values(value_model: TensorDictModuleBase, trajectory: TensorDictBase) -> Tensor:
    """The value of the last state that the policy saw, for each image."""
    value, following = values_of_states(value_model, trajectory, out_key=value_model.out_keys[0])
    states = torch.cat([value.reshape(-1), following.reshape(-1)[-1:]])
    return states.repeat_interleave(torch.cat([trajectory["pictures"], torch.ones(1).long()]))
