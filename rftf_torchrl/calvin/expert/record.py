"""Record chains of tasks that the expert does, in as many processes as there are cores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from rftf_torchrl.calvin.chains.stages import PolicyStage
from rftf_torchrl.calvin.env import CalvinEnv
from rftf_torchrl.calvin.expert.expert import CalvinExpert
from rftf_torchrl.calvin.scenes import training_scene
from rftf_torchrl.calvin.sequences import Chain
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.calvin.simulator import CalvinSimulator
from rftf_torchrl.envs.episodes import LocalActor
from rftf_torchrl.envs.guarded_pool import GuardedPool, Lost
from rftf_torchrl.envs.one_thread import one_thread
from rftf_torchrl.envs.takeover import Takeover
from rftf_torchrl.envs.workers import Processes, SignsOfLife
from rftf_torchrl.training.seeding import derive_seed

logger = logging.getLogger(__name__)

_ATTEMPTS = 2


@dataclass(frozen=True)
class RecordedTask:
    """A task that was done, T control steps of the expert's long.

    Attributes:
        task: CALVIN's name.
        depth: how many tasks of the chain came before.
        scene: the scene's letter.
        robot_obs: float64 [T + 1, 15], before each step and after the last.
        scene_obs: float64 [T + 1, 24].
        actions: float64 [T, 7], relative actions of the expert without its noise.
        pictures: uint8 [T + 1, 3, size, size] of the static camera, or ``None``.
        wrist_pictures: uint8 [T + 1, 3, size, size] of the gripper camera, or ``None``.
        takeover: decisions that a policy took before the expert.
    """

    task: str
    depth: int
    scene: Scene
    robot_obs: np.ndarray
    scene_obs: np.ndarray
    actions: np.ndarray
    pictures: np.ndarray | None = None
    wrist_pictures: np.ndarray | None = None
    takeover: int = 0


@dataclass(frozen=True)
class RecordedChain:
    """What was recorded of a chain.

    Attributes:
        tasks: those that the expert did, in order.
        steps: control steps that were played, those of tasks that are left out included.
    """

    tasks: list[RecordedTask] = field(default_factory=list)
    steps: int = 0


@dataclass(frozen=True)
class ChainToRecord:
    """One chain and the training scene that it begins in.

    Attributes:
        chain: initial state and tasks.
        seed: of the scene's positions and angles, and of the expert's noise.
        scene: the scene's letter.
        noise: of :class:`CalvinExpert`.
        image_size: edge in pixels of the static camera's images; ``None`` for none.
        wrist_size: edge in pixels of the gripper camera's images; ``None`` for none.
        max_steps: control steps for each task.
    """

    chain: Chain
    seed: int
    scene: Scene = "D"
    noise: float = 0.0
    image_size: int | None = None
    wrist_size: int | None = None
    max_steps: int = 360


def _look(simulator: CalvinSimulator, job: ChainToRecord) -> dict[str, np.ndarray]:
    seen = {"robot_obs": simulator.robot_obs.copy(), "scene_obs": simulator.scene_obs.copy()}
    if job.image_size is not None:
        seen["pictures"] = simulator.picture(job.image_size)
    if job.wrist_size is not None:
        seen["wrist_pictures"] = simulator.wrist_picture(job.wrist_size)
    return seen


def record_chain(
    simulator: CalvinSimulator,
    job: ChainToRecord,
    alive: Callable[[], None] = lambda: None,
    takeover: Takeover | None = None,
    stage: PolicyStage | None = None,
) -> RecordedChain:
    """Let the expert do one chain and keep every task that it did.

    Args:
        simulator: of the job's scene.
        job: the chain.
        alive: called at every control step.
        takeover: a policy that begins half of the tasks; the oracle judges from the task's start.
        stage: where it acts, in the same simulator.

    Returns:
        The tasks that the expert did, from where it took over. The one that failed, which ends the
        chain, is left out, and so is one that the policy did alone.

    Raises:
        ValueError: where the simulator is of another scene.
    """
    if simulator.scene != job.scene:
        raise ValueError(f"the chain is for scene {job.scene}, the simulator is {simulator.scene}")
    start_state = training_scene(job.chain.initial_state, job.seed, job.scene)
    if stage is None:
        simulator.reset(*start_state)
    else:
        stage.begin(*start_state, job.seed, 0)
    expert = CalvinExpert(noise=job.noise, seed=job.seed)
    recorded: list[RecordedTask] = []
    steps = 0
    for depth, task in enumerate(job.chain.tasks):
        start = simulator.info
        decisions = 0
        if takeover is not None and stage is not None:
            decisions = takeover.decisions(derive_seed(job.seed, "takeover", depth))
        if decisions and takeover is not None and stage is not None:
            alone, played = stage.do(task, alive, decisions * takeover.chunk_size)
            steps += played
            if alone:
                continue
        expert.start(task, simulator)
        seen, actions = [_look(simulator, job)], []
        for _ in range(job.max_steps):
            actions.append(expert.action(simulator))
            simulator.step(expert.disturb(actions[-1]))
            seen.append(_look(simulator, job))
            steps += 1
            alive()
            if simulator.achieved(start, [task]):
                break
        else:
            break
        columns = {name: np.stack([each[name] for each in seen]) for name in seen[0]}
        done = RecordedTask(
            task,
            depth,
            job.scene,
            actions=np.stack(actions),
            takeover=decisions,
            **columns,
        )
        recorded.append(done)
    return RecordedChain(recorded, steps)


class _Recorder:
    """A process's only simulator, made again where the scene changes."""

    def __init__(
        self, takeover: Takeover | None = None, sentences: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._takeover, self._sentences = takeover, sentences
        self._stage: PolicyStage | None = None
        self._simulator: CalvinSimulator | None = None

    def record(self, job: ChainToRecord, alive: Callable[[], None]) -> RecordedChain:
        if self._simulator is None or self._simulator.scene != job.scene:
            self.close()
            self._simulator = self._open(job)
        return record_chain(self._simulator, job, alive, self._takeover, self._stage)

    def _open(self, job: ChainToRecord) -> CalvinSimulator:
        if self._takeover is None:
            return CalvinSimulator(job.scene)
        env = CalvinEnv(
            scene=job.scene,
            image_size=job.image_size,
            wrist_size=job.wrist_size,
            chunk_size=self._takeover.chunk_size,
            horizon=self._takeover.most,
        )
        actor = LocalActor(self._takeover.policy)
        self._stage = PolicyStage(env, actor, job.max_steps, True, self._sentences)
        return env.simulator

    def play(self, job: ChainToRecord, send: Callable[[Any], None]) -> None:
        """Sends what is recorded, and signs of life before."""
        send(self.record(job, SignsOfLife(send)))

    def close(self) -> None:
        """Frees the simulator."""
        if self._simulator is not None:
            self._simulator.close()
        self._simulator = None


def record_chains(
    jobs: Sequence[ChainToRecord],
    *,
    workers: int = 2,
    timeout: float = 120.0,
    max_restarts: int = 10,
    takeover: Takeover | None = None,
    sentences: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[RecordedChain]:
    """Record many chains; the result does not depend on the number of processes.

    Args:
        jobs: the chains; those of one scene should follow one another, as a process holds one
            scene at a time.
        workers: processes; 0 records in this one.
        timeout: seconds without a control step after which a process counts as hung.
        max_restarts: how many dead or hung processes to replace before giving up.
        takeover: a policy that begins half of the tasks.
        sentences: what that policy is told, by task: the first of each; ``None`` for the library's
            own instructions.

    Yields:
        What :func:`record_chain` returns, in the order of the jobs; nothing of a chain with which
        two processes died or hung.

    Raises:
        TooManyCrashesError: when processes keep dying.
        RuntimeError: when a process met a programming error.
    """
    if workers == 0:
        with closing(_Recorder(takeover, sentences)) as recorder:
            for job in jobs:
                with one_thread(), torch.random.fork_rng(devices=[]):
                    recorded = recorder.record(job, lambda: None)
                yield recorded
        return
    pool = GuardedPool(
        Processes(partial(_Recorder, takeover, sentences), preload=__name__),
        min(workers, len(jobs)),
        timeout=timeout,
        max_restarts=max_restarts,
    )
    early: dict[int, RecordedChain] = {}
    following = 0
    with closing(pool):
        for number, found in pool.play(dict(enumerate(jobs)), _ATTEMPTS):
            if isinstance(found, Lost):
                logger.warning(
                    "chain %d of %d, of seed %d in scene %s, is left out: %d processes were lost "
                    "with it, the last one %s",
                    *(number, len(jobs), jobs[number].seed, jobs[number].scene, _ATTEMPTS),
                    found.why,
                )
            early[number] = RecordedChain() if isinstance(found, Lost) else found
            while following in early:
                yield early.pop(following)
                following += 1
