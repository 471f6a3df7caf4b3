"""Play chains in processes that may crash or hang; each lost chain is played once more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from functools import partial
from typing import TypeAlias

import torch

from rftf_torchrl.calvin.chains.results import ChainResult
from rftf_torchrl.calvin.chains.stages import ChainStage, play_chain
from rftf_torchrl.calvin.sequences import Chain
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.envs.guarded_pool import GuardedPool, Lost, SignsOfLife
from rftf_torchrl.errors import SimulatorCrashedError

logger = logging.getLogger(__name__)

_ATTEMPTS = 2

Results: TypeAlias = Generator[tuple[int, ChainResult | None], None, None]


def _play_here(
    make_stage: Callable[[], ChainStage], chains: Mapping[int, Chain], scene: Scene, seed: int
) -> Results:
    stage: ChainStage | None = None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for index, chain in chains.items():
            result = None
            for _ in range(_ATTEMPTS):
                stage = make_stage() if stage is None else stage
                try:
                    result = play_chain(stage, index, chain, scene=scene, seed=seed)
                    break
                except SimulatorCrashedError as error:
                    logger.warning("chain %d: %s", index, error)
                    stage.close()
                    stage = None
            yield index, result
    finally:
        torch.set_num_threads(threads)
        if stage is not None:
            stage.close()


class _ChainPlayer:
    """Plays chains in a worker process, all in one simulator."""

    def __init__(self, make_stage: Callable[[], ChainStage], scene: Scene, seed: int) -> None:
        self.stage, self.scene, self.seed = make_stage(), scene, seed

    def play(self, job: tuple[int, Chain], send: Callable[[ChainResult | None], None]) -> None:
        """Sends the result of a chain, and signs of life before."""
        alive = SignsOfLife(send)
        send(play_chain(self.stage, *job, scene=self.scene, seed=self.seed, alive=alive))

    def close(self) -> None:
        """Frees the simulator."""
        self.stage.close()


def play_chains(
    make_stage: Callable[[], ChainStage],
    chains: Mapping[int, Chain],
    scene: Scene,
    seed: int,
    *,
    workers: int,
    timeout: float,
    max_restarts: int,
) -> Results:
    """Play chains, each in a simulator that is as new.

    Args:
        make_stage: picklable; builds where they are played.
        chains: by index.
        scene: letter of the scene.
        seed: of the policy's noise.
        workers: number of processes, each with one simulator; 0 plays in this one.
        timeout: seconds without a sign of life after which a worker counts as hung.
        max_restarts: how many dead or hung workers to replace before giving up.

    Yields:
        (index, result) as chains finish, with ``None`` where two simulators were lost with it.

    Raises:
        TooManyCrashesError: when workers keep dying.
        RuntimeError: when a worker met a programming error.
    """
    if workers == 0:
        yield from _play_here(make_stage, chains, scene, seed)
        return
    pool = GuardedPool(
        partial(_ChainPlayer, make_stage, scene, seed),
        min(workers, len(chains)),
        timeout=timeout,
        max_restarts=max_restarts,
        preload=__name__,
    )
    with closing(pool):
        for index, found in pool.play(
            {index: (index, chain) for index, chain in chains.items()}, _ATTEMPTS
        ):
            yield index, None if isinstance(found, Lost) else found
