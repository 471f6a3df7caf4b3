"""Made-up demonstrations with a known time order, for tests, tutorials and dry runs."""

from __future__ import annotations

from pathlib import Path

import torch
from tensordict import TensorDict

from rftf_torchrl import keys
from rftf_torchrl.data.format import ACTION, Task
from rftf_torchrl.data.writer import DemonstrationWriter


def write_synthetic_demonstrations(
    root: str | Path,
    *,
    num_tasks: int = 2,
    episodes_per_task: int = 2,
    length: int = 6,
    image_size: tuple[int, int] | None = (8, 8),
    state_dim: int = 3,
    action_dim: int = 2,
    seed: int = 0,
) -> Path:
    """Write episodes whose images brighten from 0 to 255 and whose state grows from 0 to 1.

    Episode ``i`` of a task has ``length + i % 2`` frames, so that lengths differ where
    ``episodes_per_task`` is 2 or more. Actions are uniform in [-1, 1].

    Args:
        root: the folder to make.
        num_tasks: the number of tasks; a task's tokens are its id + 1.
        episodes_per_task: episodes of each task, all successful.
        length: frames of the first episode.
        image_size: height and width, None for demonstrations without images.
        state_dim: size of the state.
        action_dim: size of the action.
        seed: the seed of the actions.

    Returns:
        ``root``.

    Example:
        >>> import tempfile
        >>> root = write_synthetic_demonstrations(tempfile.mkdtemp() + "/demos")
        >>> frames = TensorDict.load_memmap(root / "frames")
        >>> frames["observation", "image"].shape
        torch.Size([26, 3, 8, 8])
        >>> frames["observation", "image"][:6, 0, 0, 0].tolist()
        [0, 51, 102, 153, 204, 255]
    """
    generator = torch.Generator().manual_seed(seed)
    tasks = [Task(i, f"task-{i}", f"do task {i}") for i in range(num_tasks)]
    with DemonstrationWriter(root, tasks=tasks, simulator="synthetic") as writer:
        for task in tasks:
            for i in range(episodes_per_task):
                frames = length + i % 2
                progress = torch.linspace(0, 1, frames)
                action = 2 * torch.rand(frames, action_dim, generator=generator) - 1
                action[-1] = 0
                tokens = torch.full((frames, 4), task.id + 1, dtype=torch.int64)
                episode = TensorDict(
                    {
                        keys.STATE: progress[:, None].expand(-1, state_dim),
                        keys.TOKENS: tokens,
                        keys.TOKEN_MASK: torch.ones(frames, 4, dtype=torch.bool),
                        ACTION: action,
                    },
                    batch_size=[frames],
                )
                if image_size is not None:
                    image = (255 * progress).round().to(torch.uint8)
                    episode[keys.IMAGE] = image[:, None, None, None].expand(-1, 3, *image_size)
                writer.add_episode(episode, task_id=task.id, success=True, goal_seed=i)
    return Path(root)
