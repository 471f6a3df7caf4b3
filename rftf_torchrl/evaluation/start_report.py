"""What a policy sees at the start of an episode, and what its gripper does: for wrong conventions.

Most evaluations that give 0% have the image upside down or mirrored, the gripper's sign wrong, or
another data set's statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import TransformedEnv

from rftf_torchrl import keys
from rftf_torchrl.envs.episodes import LocalActor
from rftf_torchrl.files import whole_file, write_text
from rftf_torchrl.nets.evaluate_states import eval_mode
from rftf_torchrl.policies.call_on_tensors import leaves

GRIPPER_STEPS = 10
_LARGEST = 128


def write_start_report(
    env: Any,
    seen: TensorDictBase,
    policy: TensorDictModuleBase,
    fingers_apart: Callable[[float], float],
    folder: Path,
    label: str,
) -> str:
    """Write what the policy sees and decides as Markdown with an image.

    Args:
        env: of an arm whose actions end in the gripper's number; has just begun an episode.
        seen: what it shows.
        policy: the policy, on any device.
        fingers_apart: carries out the gripper's number :data:`GRIPPER_STEPS` times and measures the
            metres between the fingers.
        folder: where ``start_<label>.md`` and ``.png`` go.
        label: a name for the policy.

    Returns:
        The text.
    """
    observed = {key: each for key, each in leaves(seen).items() if key in policy.in_keys}
    with torch.random.fork_rng(devices=[]), eval_mode(policy):
        decision = LocalActor(policy).ask(observed, 0, True)()
    asked = seen.copy().update(decision)
    if isinstance(env, TransformedEnv):
        asked = env.transform.inv(asked)
    chunk = asked[env.action_key]
    action = chunk.reshape(-1, chunk.shape[-1])[0].tolist()
    apart = {sign: fingers_apart(sign) for sign in (-1.0, 1.0)}
    opens = max(apart, key=apart.__getitem__)
    cameras = [key for key in (keys.IMAGE, keys.WRIST_IMAGE) if key in seen.keys(True)]
    lines = [f'At the start of "{env.instruction}" the policy "{label}" sees this.']
    if cameras:
        size = max(seen[key].shape[-1] for key in cameras)
        pictures = [_padded(seen[key], size) for key in cameras]
        with whole_file(folder / f"start_{label}.png") as hidden:
            Image.fromarray(torch.cat(pictures, -1).permute(1, 2, 0).numpy()).save(hidden)
        lines.append(f"![{', '.join(key[-1] for key in cameras)}](start_{label}.png)")
    lines += [
        f"State, {seen[keys.STATE].numel()} numbers: {_numbers(seen[keys.STATE])}.",
        f"The gripper's number: {opens:+.0f} opens (fingers {apart[opens]:.3f} m apart after "
        f"{GRIPPER_STEPS} steps), {-opens:+.0f} closes ({apart[-opens]:.3f} m). The policy's first "
        f"action ends in {action[-1]:+.2f}, which {'opens' if action[-1] * opens > 0 else 'closes'}"
        f": {_numbers(torch.tensor(action))}.",
        f"The arm's numbers of the first decision are between {chunk[..., :-1].min():.3g} and "
        f"{chunk[..., :-1].max():.3g}; the simulator takes -1 to 1.",
        "Statistics in the policy:",
        "\n".join(_statistics(policy)) or "none.",
    ]
    text = "\n\n".join(lines) + "\n"
    write_text(folder / f"start_{label}.md", text)
    return text


def _padded(picture: torch.Tensor, size: int) -> torch.Tensor:
    """A picture [3, H, W] with black below it, [3, size, W]."""
    return torch.nn.functional.pad(picture, (0, 0, 0, size - picture.shape[-2]))


def _statistics(policy: torch.nn.Module) -> list[str]:
    return [
        f"- {name}: {_numbers(buffer)}"
        for name, buffer in policy.named_buffers()
        if buffer.is_floating_point() and buffer.numel() <= _LARGEST
    ]


def _numbers(values: torch.Tensor) -> str:
    return ", ".join(f"{value:.3g}" for value in values.reshape(-1).tolist())
