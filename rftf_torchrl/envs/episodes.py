"""Episodes as plain descriptions, and the loop that plays one after another with a policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey, unravel_key
from torchrl.envs import EnvBase

from rftf_torchrl.envs.action_sizes import check_action_sizes
from rftf_torchrl.envs.one_thread import one_thread
from rftf_torchrl.envs.row_noise import decide
from rftf_torchrl.nets.encoders import keep_instruction
from rftf_torchrl.nets.evaluate_states import eval_mode
from rftf_torchrl.policies.call_on_tensors import Tensors, leaves

Split = Literal["train", "test"]


def check_split(split: str) -> None:
    """Raises ``ValueError`` for another split than ``"train"`` or ``"test"``."""
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")


"""Which initial states: those of training, or those that training never draws."""


@dataclass(frozen=True)
class Episode:
    """One episode to run: nothing but its task and its seed decides where it starts.

    Attributes:
        task: the task's name.
        seed: the initial state within the task.
        instruction: the task's text to give to the policy, ``None`` for the task's own. Another one
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


class Actor(Protocol):
    """A policy as an episode sees it: here, or in another process."""

    in_keys: Sequence[NestedKey]

    def episode(self) -> AbstractContextManager[None]:
        """Entered for an episode, in which no weight changes."""
        ...

    def ask(self, observed: Tensors, noise: int, deterministic: bool) -> Callable[[], Tensors]:
        """Ask for the decision for one observation, leaves by key; ``noise`` seeds its noise.

        Returns:
            Waits for the decision, and gives its leaves by key.
        """
        ...


class LocalActor:
    """Acts with a policy of this process, on batches of one.

    Args:
        policy: TensorDict policy on any device.
    """

    def __init__(self, policy: TensorDictModuleBase) -> None:
        self.in_keys = policy.in_keys
        self._policy = policy

    def load(self, weights: Mapping[str, Any]) -> None:
        """Gives the policy other weights."""
        self._policy.load_state_dict(weights)

    def episode(self) -> AbstractContextManager[None]:
        """Has a policy with a memory forget, and the episode's instruction encoded once."""
        forget = getattr(self._policy, "reset", None)
        if forget is not None:
            forget()
        return keep_instruction(self._policy)

    def ask(self, observed: Tensors, noise: int, deterministic: bool) -> Callable[[], Tensors]:
        """Gives the policy's decision, which is there at once."""
        batch = {key: each.unsqueeze(0) for key, each in observed.items()}
        decided = decide(self._policy, batch, [noise], deterministic=deterministic)
        decision = {key: each[0] for key, each in decided.items()}
        return lambda: decision


def noise_seed(seed: int, index: int, decision: int) -> int:
    """The seed of the noise of one decision of one episode.

    Args:
        seed: that of the collection.
        index: the episode's place in its list.
        decision: the number of the decision in its episode.

    Example:
        >>> noise_seed(0, 3, 0) == noise_seed(0, 0, 3)
        False
    """
    return int(np.random.SeedSequence([seed, index, decision]).generate_state(1)[0])


class _Stage:
    """An environment, and what the first episode in it says."""

    def __init__(self, env: EnvBase, task: str) -> None:
        self.env = env
        self.task = task
        self.observed = [*env.observation_spec.keys(True, True), *env.done_keys]
        self.repeated = {unravel_key(("next", key)) for key in getattr(env, "input_keys", ())}
        self.fits = False

    def start(self, episode: Episode) -> TensorDictBase:
        self._give_task(episode)
        self._give_instruction(episode)
        # for an environment that draws from torch's own generator
        torch.default_generator.manual_seed(int(episode.seed))
        seed = TensorDict({"episode_seed": torch.tensor([episode.seed])})
        current = self.env.reset(seed).select(*self.observed)
        started = current.get("episode_seed", seed["episode_seed"])
        if started.item() != episode.seed:
            raise RuntimeError(
                f"the environment of task {episode.task!r} started episode {started.item()} "
                f"instead of {episode.seed}: its reset ignored 'episode_seed'. Inside a "
                "TransformedEnv, an entry reaches the reset only if it is in the state_spec."
            )
        return current

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
                f"can't be given the instruction {episode.instruction!r}"
            )

    def check(self, decision: Tensors) -> None:
        if not self.fits:
            check_action_sizes(decision, self.env, self.task)
            self.fits = True

    def keep(self, step: TensorDictBase, columns: dict[NestedKey, list[Any]]) -> None:
        for key, each in leaves(step).items():
            if key not in self.repeated:
                columns[key].append(each)


class EpisodePlayer:
    """Plays episodes one after another, each in the environment that is its own by name.

    Args:
        make_env: see :func:`run_episodes`.
        actor: decides.
        envs: environments to reuse, by name; new ones are added to it.

    Attributes:
        actor: decides.
    """

    def __init__(
        self,
        make_env: Callable[[Episode], EnvBase],
        actor: Actor,
        envs: dict[Hashable, EnvBase] | None = None,
    ) -> None:
        self._make_env, self.actor = make_env, actor
        self._envs = {} if envs is None else envs
        self._stages: dict[Hashable, _Stage] = {}

    def play(
        self,
        index: int,
        episode: Episode,
        *,
        deterministic: bool,
        seed: int,
        alive: Callable[[], None] = lambda: None,
    ) -> TensorDictBase:
        """Play an episode to its end.

        Args:
            index: its place in its list, from which comes its noise.
            episode: which.
            deterministic: the policy's mean action instead of a sample.
            seed: of the policy's noise.
            alive: called before each decision.

        Returns:
            The trajectory, TensorDict [T].
        """
        stage = self._stage(episode)
        read = [key for key in self.actor.in_keys if key in stage.observed]
        current = stage.start(episode)
        step: TensorDictBase = TensorDict()
        columns: dict[NestedKey, list[Any]] = defaultdict(list)
        decisions, done = 0, False
        noise = noise_seed(seed, index, decisions)
        with self.actor.episode():
            while not done:
                alive()
                observed = {key: current.get(key) for key in read}
                answer = self.actor.ask(observed, noise, deterministic)
                # a server decides meanwhile
                stage.keep(step, columns)
                current = current.select(*stage.observed)
                decisions += 1
                noise, before = noise_seed(seed, index, decisions), noise
                decision = answer()
                stage.check(decision)
                # the same in a step, where it is not to repeat the policy's noise
                torch.default_generator.manual_seed(before + 1)
                step = stage.env.step(current.update(decision))
                current, done = step["next"], bool(step["next", "done"])
        stage.keep(step, columns)
        trajectory = {key: torch.stack(column) for key, column in columns.items()}
        return TensorDict(trajectory, [decisions], device=current.device)

    def _stage(self, episode: Episode) -> _Stage:
        name = environment_of(self._make_env, episode)
        if name not in self._envs:
            self._envs[name] = self._make_env(episode)
        if name not in self._stages:
            self._stages[name] = _Stage(self._envs[name], episode.task)
        return self._stages[name]

    def drop(self, name: Hashable) -> None:
        """Close the environment of this name, if there is one."""
        self._stages.pop(name, None)
        if name in self._envs:
            self._envs.pop(name).close()

    def close(self) -> None:
        """Close all environments."""
        for name in list(self._envs):
            self.drop(name)


def run_episodes(
    make_env: Callable[[Episode], EnvBase],
    policy: TensorDictModuleBase,
    episodes: Iterable[tuple[int, Episode]],
    *,
    deterministic: bool,
    seed: int = 0,
    envs: dict[Hashable, EnvBase] | None = None,
) -> Iterator[EpisodeResult]:
    """Run the episodes one after another in this process, in as few environments as they need.

    The policy is called on batches of one, with noise of its own for each decision, from the seed
    and the episode's index: an episode is the same alone or among others.

    Where an environment has ``input_keys``, entries that nothing but the policy reads, these are
    kept of the states in which the policy decided, and not under ``"next"``.

    There is one environment per task. Where one can play several tasks, ``make_env`` has a method
    ``environment_of(episode)``: episodes for which it gives the same value share an environment,
    which has a method ``set_task(name)``.

    Args:
        make_env: builds the environment of an episode's task; its reset must take
            ``"episode_seed"``, also inside a ``TransformedEnv`` (declare it in the state_spec).
        policy: TensorDict policy on any device. Its ``in_keys`` are what it is given and its
            ``out_keys`` what is kept. If it has a method ``reset()``, that is called at the start
            of each episode.
        episodes: (index, episode) pairs.
        deterministic: the policy's mean action instead of a sample.
        seed: of the policy's noise, 0 or more.
        envs: environments to reuse, by task or ``environment_of``; new ones are added to it.

    Yields:
        Each episode as it finishes.

    Raises:
        RuntimeError: when an environment started another episode than the one asked for.
        TypeError: when an environment lacks the ``set_task`` or ``set_instruction`` that its
            episodes need.
        ValueError: when the policy's action is missing or has other sizes than the environment's.
    """
    player = EpisodePlayer(make_env, LocalActor(policy), envs)
    for index, episode in episodes:
        with one_thread(), torch.random.fork_rng(devices=[]), eval_mode(policy):
            trajectory = player.play(index, episode, deterministic=deterministic, seed=seed)
        yield EpisodeResult(index, trajectory)
