"""What a policy sees at the start of an episode, and what its gripper does: for wrong conventions.

Most evaluations that give 0% have the image upside down or mirrored, the gripper's sign wrong, or
another data set's statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl import keys
from rftf_torchrl.envs.episodes import Episode
from rftf_torchrl.files import whole_file, write_text
from rftf_torchrl.libero.simulator import ACTION_DIM, LiberoSimulator
from rftf_torchrl.nets.evaluate_states import policy_device

_GRIPPER_STEPS = 10
_LARGEST = 128


def write_start_report(
    make_env: Callable[[Episode], EnvBase],
    policy: TensorDictModuleBase,
    episode: Episode,
    folder: Path,
    label: str,
) -> str:
    """Begin an episode, and write what the policy sees and decides as Markdown with an image.

    Args:
        make_env: the environment of the episode, of :class:`~rftf_torchrl.LiberoFactory`.
        policy: the policy.
        episode: the episode.
        folder: where ``start_<label>.md`` and ``.png`` go.
        label: a name for the policy.

    Returns:
        The text.
    """
    env = make_env(episode)
    try:
        seed = TensorDict({"episode_seed": torch.tensor([episode.seed])})
        seen = env.reset(seed)
        deterministic = set_exploration_type(ExplorationType.DETERMINISTIC)
        with torch.inference_mode(), deterministic:
            known = seen.select(*policy.in_keys, strict=False)
            decision = policy(known.unsqueeze(0).to(policy_device(policy))).squeeze(0)
        action = decision[env.action_key].reshape(-1, ACTION_DIM)[0].tolist()
        apart = {sign: _fingers_apart(env.simulator, sign) for sign in (-1.0, 1.0)}
        sentence = env.instruction
    finally:
        env.close()
    cameras = [key for key in (keys.IMAGE, keys.WRIST_IMAGE) if key in seen.keys(True)]
    lines = [f'At the start of "{sentence}" the policy "{label}" sees this.']
    if cameras:
        picture = torch.cat([seen[key] for key in cameras], -1).permute(1, 2, 0).numpy()
        with whole_file(folder / f"start_{label}.png") as hidden:
            Image.fromarray(picture).save(hidden)
        lines.append(f"![{', '.join(key[-1] for key in cameras)}](start_{label}.png)")
    meaning = "closes" if action[-1] > 0 else "opens"
    lines += [
        f"State, {seen[keys.STATE].numel()} numbers: {_numbers(seen[keys.STATE])}.",
        f"The gripper's number: -1 opens (fingers {apart[-1.0]:.3f} m apart after "
        f"{_GRIPPER_STEPS} steps), +1 closes ({apart[1.0]:.3f} m). The policy's first action ends "
        f"in {action[-1]:+.2f}, which {meaning}: {_numbers(torch.tensor(action))}.",
        "Statistics in the policy:",
        "\n".join(_statistics(policy)) or "none.",
    ]
    text = "\n\n".join(lines) + "\n"
    write_text(folder / f"start_{label}.md", text)
    return text


def _fingers_apart(simulator: LiberoSimulator, sign: float) -> float:
    for _ in range(_GRIPPER_STEPS):
        simulator.step(np.array([0.0] * 6 + [sign]))
    return float(np.abs(simulator.observed["robot0_gripper_qpos"]).sum())


def _statistics(policy: torch.nn.Module) -> list[str]:
    return [
        f"- {name}: {_numbers(buffer)}"
        for name, buffer in policy.named_buffers()
        if buffer.is_floating_point() and buffer.numel() <= _LARGEST
    ]


def _numbers(values: torch.Tensor) -> str:
    return ", ".join(f"{value:.3g}" for value in values.reshape(-1).tolist())
