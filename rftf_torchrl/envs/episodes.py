"""Episodes as plain descriptions, and a loop that runs a list of them with one policy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey, unravel_key
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl.envs.action_sizes import check_action_sizes
from rftf_torchrl.nets.evaluate_states import policy_device

Split = Literal["train", "test"]
"""Which initial states: those of training, or those that training never draws."""


@dataclass(frozen=True)
class Episode:
    """One episode to run: nothing but its task and its seed decides where it starts.

    Attributes:
        task: the task's name.
        seed: the initial state within the task.
        instruction: the sentence to give to the policy, ``None`` for the task's own. Another one
            needs an environment with ``set_instruction(text)``.
    """

    task: str
    seed: int
    instruction: str | None = None


@dataclass(frozen=True)
class EpisodeResult:
    """A finished episode.

    Attributes:
        index: its place in the list that was asked for.
        trajectory: TensorDict [T] in TorchRL's layout (``("next", ...)`` filled).
    """

    index: int
    trajectory: TensorDictBase


def environment_of(make_env: Callable[[Episode], EnvBase], episode: Episode) -> Hashable:
    """What names the environment of an episode: its task, unless ``make_env`` says otherwise."""
    name = getattr(make_env, "environment_of", None)
    return episode.task if name is None else name(episode)


class _Slot:
    def __init__(self, env: EnvBase, queue: deque[tuple[int, Episode]]) -> None:
        self.env = env
        self.queue = queue
        self.task = queue[0][1].task
        self.observed = [*env.observation_spec.keys(True, True), *env.done_keys]
        self.repeated = [unravel_key(("next", key)) for key in getattr(env, "input_keys", ())]
        self.fits = False
        self.index = -1
        self.steps: list[TensorDictBase] = []
        self.current = TensorDict()

    def start_next(self) -> bool:
        if not self.queue:
            return False
        self.index, episode = self.queue.popleft()
        self.steps = []
        self._give_task(episode)
        self._give_instruction(episode)
        seed = TensorDict({"episode_seed": torch.tensor([episode.seed])})
        self.current = self.env.reset(seed).select(*self.observed)
        started = self.current.get("episode_seed", seed["episode_seed"])
        if started.item() != episode.seed:
            raise RuntimeError(
                f"the environment of task {episode.task!r} started episode {started.item()} "
                f"instead of {episode.seed}: its reset ignored 'episode_seed'. Inside a "
                "TransformedEnv, an entry reaches the reset only if it is in the state_spec."
            )
        return True

    def _give_task(self, episode: Episode) -> None:
        give = getattr(self.env, "set_task", None)
        if give is not None:
            give(episode.task)
        elif episode.task != self.task:
            raise TypeError(
                f"one environment was given the tasks {self.task!r} and {episode.task!r}, but it "
                "has no set_task(name)"
            )

    def _give_instruction(self, episode: Episode) -> None:
        give = getattr(self.env, "set_instruction", None)
        if give is not None:
            give(episode.instruction)
        elif episode.instruction is not None:
            raise TypeError(
                f"the environment of task {episode.task!r} has no set_instruction(text), so it "
                f"can't be given the sentence {episode.instruction!r}"
            )

    def step(self, decision: TensorDictBase) -> bool:
        if not self.fits:
            check_action_sizes(decision, self.env, self.task)
            self.fits = True
        step = self.env.step(self.current.update(decision))
        self.steps.append(step.exclude(*self.repeated))
        self.current = step["next"].select(*self.observed)
        return bool(step["next", "done"])


def _policy_input(slots: list[_Slot], in_keys: Sequence[NestedKey]) -> TensorDictBase:
    """What the policy reads of it: stacking the rest would cost more than the policy."""
    observed = slots[0].observed
    columns = {
        key: torch.stack([slot.current.get(key) for slot in slots])
        for key in in_keys
        if key in observed
    }
    return TensorDict(columns, batch_size=[len(slots)])


def run_episodes(
    make_env: Callable[[Episode], EnvBase],
    policy: TensorDictModuleBase,
    episodes: Sequence[tuple[int, Episode]],
    *,
    deterministic: bool,
    envs: dict[Hashable, EnvBase] | None = None,
    on_start: Callable[[int], None] | None = None,
) -> Iterator[EpisodeResult]:
    """Run the episodes in as few environments as they need, with one policy call for all of them.

    Where an environment has ``input_keys``, entries that nothing but the policy reads, these are
    kept of the states in which the policy decided, and not under ``"next"``.

    There is one environment per task. Where one can play several tasks, ``make_env`` has a method
    ``environment_of(episode)``: episodes for which it gives the same value share an environment,
    which has a method ``set_task(name)``.

    Args:
        make_env: builds the environment of an episode's task; its reset must take
            ``"episode_seed"``, also inside a ``TransformedEnv`` (declare it in the state_spec).
        policy: TensorDict policy on any device; called on [K] observations, K being the
            environments still running. Its ``in_keys`` are what it is given and its ``out_keys``
            what is kept.
        episodes: (index, episode) pairs.
        deterministic: the policy's mean action instead of a sample.
        envs: environments to reuse, by task or ``environment_of``; new ones are added to it.
        on_start: called with the index of an episode before it starts.

    Yields:
        Each episode as it finishes.

    Raises:
        RuntimeError: when an environment started another episode than the one asked for.
        TypeError: when an environment lacks the ``set_task`` or ``set_instruction`` that its
            episodes need.
        ValueError: when the policy's action is missing or has other sizes than the environment's.
    """
    envs = {} if envs is None else envs
    queues: dict[Hashable, deque[tuple[int, Episode]]] = {}
    for index, episode in episodes:
        name = environment_of(make_env, episode)
        queues.setdefault(name, deque()).append((index, episode))
    slots = []
    for name, queue in queues.items():
        if name not in envs:
            envs[name] = make_env(queue[0][1])
        slots.append(_Slot(envs[name], queue))

    def start(slot: _Slot) -> bool:
        if on_start is not None and slot.queue:
            on_start(slot.queue[0][0])
        return slot.start_next()

    device = policy_device(policy)
    active = [slot for slot in slots if start(slot)]
    mode = ExplorationType.DETERMINISTIC if deterministic else ExplorationType.RANDOM
    while active:
        with torch.inference_mode(), set_exploration_type(mode):
            observed = _policy_input(active, policy.in_keys).to(device)
            decided = policy(observed).select(*policy.out_keys).to("cpu")
        for slot, decision in zip(list(active), decided.unbind(0), strict=True):
            if slot.step(decision):
                yield EpisodeResult(slot.index, torch.stack(slot.steps))
                if not start(slot):
                    active.remove(slot)
