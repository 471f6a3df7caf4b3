"""Episodes with their values, as a value model saw them: forwards, backwards, under other words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.data.demonstrations import Demonstrations
from rftf_torchrl.evaluation.trajectories import require_entry, split_trajectories, succeeded
from rftf_torchrl.evaluation.value_curves import task_name
from rftf_torchrl.nets.evaluate_states import evaluate_states

Source = Literal["demonstration", "reversed", "shuffled", "wrong_instruction", "success", "failure"]
SOURCES: tuple[Source, ...] = get_args(Source)
_WORDS = "instruction"


@dataclass(frozen=True, eq=False)
class ScoredEpisode:
    """The values of one episode's states.

    Attributes:
        source: ``"demonstration"``: held out, in its order, under its own instruction;
            ``"reversed"``, ``"shuffled"``, ``"wrong_instruction"``: one played otherwise;
            ``"success"``, ``"failure"``: a rollout of a policy, or an episode of data from outside
        that is labelled so.
        task: name of the task.
        values: one per state in the order in which they were shown, floating, [n >= 2].
        final_values: value of the last state under the instruction of each task, by the task's
            name; empty where it was not asked for.

    Raises:
        ValueError: if the source is unknown, or the values are fewer than two or not finite.

    Example:
        >>> ScoredEpisode("success", "reach", torch.tensor([0.0, 0.4, 0.9])).values.shape
        torch.Size([3])
    """

    source: Source
    task: str
    values: Tensor
    final_values: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"source is {self.source!r}; expected one of {', '.join(SOURCES)}.")
        what = f"the values of a {self.source} episode of task {self.task!r}"
        if self.values.ndim != 1 or len(self.values) < 2:
            raise ValueError(
                f"{what} have shape {list(self.values.shape)}; expected [n] with n >= 2 states."
            )
        finals = torch.tensor(list(self.final_values.values()))
        if not (torch.isfinite(self.values).all() and torch.isfinite(finals).all()):
            raise ValueError(f"{what} are not all finite; a report on them would mean nothing.")
        object.__setattr__(self, "values", self.values.detach().cpu().double())


def task_instructions(demonstrations: Demonstrations) -> dict[str, TensorDictBase]:
    """One instruction of each task, as the first demonstration of the task has it.

    Args:
        demonstrations: where to look; a value model that is calibrated per instruction knows those
            of the demonstrations that it was trained on.

    Returns:
        By the task's name, in the order of their ids, the entries under ``"instruction"``, batch
        [1].

    Raises:
        KeyError: if the frames have no instruction.
    """
    names = {task.id: task.name for task in demonstrations.tasks}
    found: dict[int, TensorDictBase] = {}
    for episode in demonstrations.episodes:
        if episode.task_id not in found:
            frame = demonstrations.frames[episode.start : episode.start + 1]
            require_entry(frame, keys.TOKENS)
            found[episode.task_id] = frame.get(_WORDS).clone()
    return {names[number]: found[number] for number in sorted(found)}


def score_demonstrations(
    value_model: TensorDictModuleBase,
    demonstrations: Demonstrations,
    instructions: Mapping[str, TensorDictBase],
    *,
    generator: torch.Generator,
) -> list[ScoredEpisode]:
    """Show demonstrations to a value model in order, backwards, shuffled and with wrong words.

    The wrong instruction is that of another task, each in turn over the episodes of a task; with
    one task there is none.

    Args:
        value_model: writes the value of a state, float [*B, 1], to its first ``out_keys``.
        demonstrations: episodes that the model was not trained on.
        instructions: by task, see :func:`task_instructions`.
        generator: of the shuffled order, on the CPU.

    Returns:
        Up to four for each episode, in the order of the episodes.

    Raises:
        KeyError: if an input of the model is missing.
        ValueError: if a value is not finite.
    """
    names = {task.id: task.name for task in demonstrations.tasks}
    seen: dict[str, int] = {}
    scored = []
    for episode in demonstrations.episodes:
        frames = _inputs(value_model, demonstrations.frames[episode.start : episode.stop])
        task = names[episode.task_id]
        finals = _final_values(value_model, frames[-1:], task, instructions)
        count = len(frames)
        orders: dict[Source, Tensor] = {
            "demonstration": torch.arange(count),
            "reversed": torch.arange(count).flip(0),
            "shuffled": torch.randperm(count, generator=generator),
        }
        for source, order in orders.items():
            values = _score(value_model, frames[order])
            kept = finals if source == "demonstration" else {}
            scored.append(ScoredEpisode(source, task, values, kept))
        others = [name for name in instructions if name != task]
        if others:
            wrong = others[seen.get(task, 0) % len(others)]
            seen[task] = seen.get(task, 0) + 1
            values = _score(value_model, _under(frames, instructions[wrong]))
            scored.append(ScoredEpisode("wrong_instruction", task, values))
    return scored


def score_labelled(
    value_model: TensorDictModuleBase, demonstrations: Demonstrations
) -> list[ScoredEpisode]:
    """Show a value model the episodes of data from outside whose outcome is labelled.

    Args:
        value_model: writes the value of a state, float [*B, 1], to its first ``out_keys``.
        demonstrations: episodes that the model was not trained on.

    Returns:
        One ``"success"`` or ``"failure"`` for each labelled episode, in their order.

    Raises:
        KeyError: if an input of the model is missing.
        ValueError: if a value is not finite.
    """
    names = {task.id: task.name for task in demonstrations.tasks}
    scored = []
    for episode in demonstrations.episodes:
        if episode.success is not None:
            frames = _inputs(value_model, demonstrations.frames[episode.start : episode.stop])
            source: Source = "success" if episode.success else "failure"
            task = names[episode.task_id]
            scored.append(ScoredEpisode(source, task, _score(value_model, frames)))
    return scored


def score_rollouts(
    value_model: TensorDictModuleBase,
    trajectories: TensorDictBase,
    instructions: Mapping[str, TensorDictBase],
    *,
    task_names: Mapping[int, str],
) -> list[ScoredEpisode]:
    """Show a policy's rollouts to a value model, and the ends of successes under every instruction.

    Args:
        value_model: writes the value of a state, float [*B, 1], to its first ``out_keys``.
        trajectories: complete trajectories, batch [N], as for
            :func:`~rftf_torchrl.split_trajectories`.
        instructions: by task, see :func:`task_instructions`.
        task_names: name by task id.

    Returns:
        One for each trajectory, in the order of the batch.

    Raises:
        KeyError: if an input of the model is missing.
        ValueError: if a trajectory is not complete, or a value is not finite.
    """
    scored = []
    for part in split_trajectories(trajectories).values():
        states = torch.cat([_inputs(value_model, part), _inputs(value_model, _last_state(part))])
        task, won = task_name(part, task_names), succeeded(part)
        finals = _final_values(value_model, states[-1:], task, instructions) if won else {}
        values = _score(value_model, states)
        scored.append(ScoredEpisode("success" if won else "failure", task, values, finals))
    return scored


def _inputs(value_model: TensorDictModuleBase, states: TensorDictBase) -> TensorDictBase:
    for key in value_model.in_keys:
        require_entry(states, key)
    return states.select(*value_model.in_keys)


def _last_state(part: TensorDictBase) -> TensorDictBase:
    """The state after the last decision; what ``"next"`` lacks is as it was before."""
    last = part[-1:].exclude("next")
    return last.update(part[-1:]["next"])


def _score(value_model: TensorDictModuleBase, states: TensorDictBase) -> Tensor:
    return evaluate_states(value_model, states, out_key=value_model.out_keys[0]).flatten()


def _under(states: TensorDictBase, instruction: TensorDictBase) -> TensorDictBase:
    words = {(_WORDS, key): value for key, value in instruction.items()}
    changed = states.clone(recurse=False)
    for key, value in words.items():
        if key in states.keys(True):
            changed[key] = value.expand(len(states), *value.shape[1:]).clone()
    return changed


def _final_values(
    value_model: TensorDictModuleBase,
    last: TensorDictBase,
    task: str,
    instructions: Mapping[str, TensorDictBase],
) -> dict[str, float]:
    """The own instruction is the episode's own instruction, not the bank's."""
    shown = [last if name == task else _under(last, words) for name, words in instructions.items()]
    values = _score(value_model, torch.cat(shown)).tolist()
    return dict(zip(instructions, values, strict=True))
