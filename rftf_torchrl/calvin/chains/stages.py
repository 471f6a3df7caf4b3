"""Play one chain of tasks: by a policy in an environment, or by a controller in a simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from tensordict import TensorDictBase
from torchrl.envs import TransformedEnv

from rftf_torchrl import keys
from rftf_torchrl.calvin.chains.results import ChainResult
from rftf_torchrl.calvin.scenes import initial_scene, training_scene
from rftf_torchrl.calvin.sequences import Chain, benchmark_set
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.envs.action_sizes import check_action_sizes
from rftf_torchrl.envs.episodes import Actor, noise_seed
from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.policies.call_on_tensors import leaves


class PolicyStage:
    """A policy in a :class:`~rftf_torchrl.CalvinEnv`.

    A chunk is cut at its first success. Steps of a chunk beyond the limit never count.

    Args:
        env: the environment.
        actor: decides. A subtask is an episode to it, as to the environment's transforms: nothing
            outlives one.
        limit: control steps for each task.
        deterministic: mean actions instead of samples.
        sentences: instructions by task, the first of which is used; ``None`` for the
            environment's.
    """

    def __init__(
        self,
        env: Any,
        actor: Actor,
        limit: int,
        deterministic: bool,
        sentences: Mapping[str, Sequence[str]] | None,
    ) -> None:
        self._env = env
        self.actor = actor
        self._limit = limit
        self._deterministic = deterministic
        self._sentences = sentences
        self._observed = [*env.observation_spec.keys(True, True), *env.done_keys]
        self._fits = False
        self._read = set(actor.in_keys)
        self._seed = self._index = self._decisions = 0

    def begin(self, robot_obs: np.ndarray, scene_obs: np.ndarray, seed: int, index: int) -> None:
        """Puts the simulator where a chain begins; its noise comes from seed and index."""
        torch.manual_seed(noise_seed(seed, index, 0) + 2)  # for an environment that draws from it
        self._env.simulator.reset(robot_obs, scene_obs)
        self._seed, self._index, self._decisions = seed, index, 0

    def do(
        self, task: str, alive: Callable[[], None], limit: int | None = None
    ) -> tuple[bool, int]:
        """Tries a task from where the simulator is: whether it was done, and its control steps."""
        limit = self._limit if limit is None else limit
        sentence = None if self._sentences is None else self._sentences[task][0]
        current = begin_subtask(self._env, task, sentence)
        steps = 0
        with self.actor.episode():
            while steps < limit:
                alive()
                decision = self._decide(current, task)
                torch.manual_seed(noise_seed(self._seed, self._index, self._decisions - 1) + 1)
                after = self._env.step(decision)["next"]
                if after[keys.CRASHED].item():
                    raise SimulatorCrashedError(f"the simulator crashed in task {task!r}")
                steps += int(after["executed"].sum())
                if after[keys.SUCCESS].item():
                    return steps <= limit, min(steps, limit)
                if after["done"].item() and steps < limit:
                    raise ValueError(
                        f"the environment ended task {task!r} after {steps} control steps, and the "
                        f"evaluation grants {limit}: give it a larger horizon"
                    )
                current = after
        return False, limit

    def _decide(self, current: TensorDictBase, task: str) -> TensorDictBase:
        noise = noise_seed(self._seed, self._index, self._decisions)
        observed = {key: each for key, each in leaves(current).items() if key in self._read}
        decision = self.actor.ask(observed, noise, self._deterministic)()
        self._decisions += 1
        if not self._fits:
            check_action_sizes(decision, self._env, task)
            self._fits = True
        return current.select(*self._observed).update(decision)

    def close(self) -> None:
        """Frees the simulator."""
        self._env.close()


def begin_subtask(env: Any, task: str, sentence: str | None) -> TensorDictBase:
    """What a policy sees first; transforms take it for the start of an episode.

    A transformed environment hands ``continue_chain`` on to the one inside, whose observation has
    seen no transform.
    """
    if not isinstance(env, TransformedEnv):
        return env.continue_chain(task, sentence)
    started = begin_subtask(env.base_env, task, sentence)
    return env.transform._reset(started.empty(), started)


class ControllerStage:
    """A controller, such as the scripted expert, in a bare simulator.

    Args:
        simulator: a :class:`~rftf_torchrl.CalvinSimulator`.
        make_controller: builds one with ``start(task, simulator)`` and ``action(simulator)``,
            again for each chain.
        limit: control steps for each task.
    """

    actor = None

    def __init__(self, simulator: Any, make_controller: Callable[[], Any], limit: int) -> None:
        self._simulator = simulator
        self._make_controller = make_controller
        self._limit = limit

    def begin(self, robot_obs: np.ndarray, scene_obs: np.ndarray, seed: int, index: int) -> None:
        """Puts the simulator where a chain begins; its noise comes from seed and index."""
        torch.manual_seed(int(np.random.SeedSequence([seed, index]).generate_state(1)[0]))
        self._simulator.reset(robot_obs, scene_obs)
        self._controller = self._make_controller()

    def do(self, task: str, alive: Callable[[], None]) -> tuple[bool, int]:
        """Tries a task from where the simulator is: whether it was done, and its control steps."""
        simulator = self._simulator
        start_info = simulator.info
        self._controller.start(task, simulator)
        for step in range(1, self._limit + 1):
            alive()
            simulator.step(self._controller.action(simulator))
            if simulator.achieved(start_info, {task}):
                return True, step
        return False, self._limit

    def close(self) -> None:
        """Frees the simulator."""
        self._simulator.close()


ChainStage: TypeAlias = PolicyStage | ControllerStage
"""Where chains are played, one after another."""


def chain_start(chain: Chain, index: int, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Where the simulator is put: a chain of the benchmark begins in D where the benchmark does."""
    if scene == "D" and chain in benchmark_set():
        return initial_scene(chain.initial_state)
    return training_scene(chain.initial_state, index, scene)


def play_chain(
    stage: ChainStage,
    index: int,
    chain: Chain,
    alive: Callable[[], None] = lambda: None,
    *,
    scene: Scene = "D",
    seed: int = 0,
) -> ChainResult:
    """Play a chain as the benchmark does: one reset, then tasks until the first that fails.

    Source: Mees et al., "CALVIN", arXiv 2112.03227; ``evaluate_policy.py`` of its code.

    Args:
        stage: where.
        index: the chain's place in the list.
        chain: the chain.
        alive: called now and then.
        scene: in ``"D"`` a chain of the benchmark begins in its initial scene; all others begin in
            a fresh one.
        seed: of the policy's noise, together with the index.

    Raises:
        SimulatorCrashedError: when the simulator died.
    """
    with torch.random.fork_rng(devices=[]):
        stage.begin(*chain_start(chain, index, scene), seed, index)
        steps: list[int] = []
        length = 0
        for task in chain.tasks:
            done, taken = stage.do(task, alive)
            steps.append(taken)
            if not done:
                break
            length += 1
    return ChainResult(index, chain.tasks, tuple(steps), length)
