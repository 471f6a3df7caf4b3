"""CALVIN's benchmark: chains of five tasks, played until the first that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from tensordict.nn import TensorDictModuleBase
from torchrl.envs.transforms import Transform

from rftf_torchrl.calvin.chains.protocol import (
    OFFICIAL_STEPS,
    chains_digest,
    protocol_label,
    sentences_label,
    versions,
)
from rftf_torchrl.calvin.chains.report import ChainReport
from rftf_torchrl.calvin.chains.results import ChainFile, ChainResult
from rftf_torchrl.calvin.chains.stages import (
    ChainStage,
    ControllerStage,
    PolicyStage,
    play_chain,
)
from rftf_torchrl.calvin.env import CalvinEnv
from rftf_torchrl.calvin.install import require_calvin_env
from rftf_torchrl.calvin.sequences import Chain, benchmark_sequences
from rftf_torchrl.calvin.settings import Scene, check_scene
from rftf_torchrl.calvin.simulator import CalvinSimulator
from rftf_torchrl.calvin.tasks import get_task
from rftf_torchrl.envs.policy_inputs import PolicyInputEnv
from rftf_torchrl.envs.policy_server import PolicyServer
from rftf_torchrl.envs.shared_policy import SharedPolicy
from rftf_torchrl.evaluation.fingerprint import function_name, policy_digest, transform_label
from rftf_torchrl.evaluation.parallel import play_unfinished


def evaluate_chains(
    policy: TensorDictModuleBase | None = None,
    *,
    controller: Callable[[], Any] | None = None,
    chains: int | Sequence[Chain] = 1000,
    steps_per_subtask: int = OFFICIAL_STEPS,
    scene: Scene = "D",
    image_size: int | None = 64,
    wrist_size: int | None = None,
    depth: bool = False,
    chunk_size: int | None = None,
    sentences: Mapping[str, Sequence[str]] | None = None,
    make_env: Callable[[], Any] | None = None,
    transform: Transform | None = None,
    deterministic: bool = True,
    seed: int = 0,
    workers: int = 2,
    serve: bool = False,
    batch: int | None = None,
    wait: float | None = None,
    timeout: float = 120.0,
    max_restarts: int = 10,
    resume_path: str | Path | None = None,
    on_start: Callable[[], object] | None = None,
    on_chain: Callable[[ChainResult | None], None] | None = None,
) -> ChainReport:
    """Play CALVIN's chains of five tasks and report success in a row and the average length.

    One reset per chain and none between its tasks. Each task starts with a policy that was reset
    and with a new start for the oracle. It has ``steps_per_subtask`` control steps, and is done
    when the oracle first says so, also in the middle of a chunk. The first failure ends the chain.
    The results do not depend on the number of workers: each chain has its own noise. A chain whose
    simulator dies is played once more by a new worker; if that one dies too, the chain is reported
    as crashed and counts neither as done nor as failed.

    Source: Mees et al., "CALVIN", arXiv 2112.03227; ``evaluate_policy.py`` of its code.

    Args:
        policy: TensorDict policy on any device; workers hold a CPU copy, and with ``serve`` or
            without workers it acts where it is. If it has a method ``reset()``, that is called at
            the start of each task.
        controller: instead of a policy, builds an object with ``start(task, simulator)`` and
            ``action(simulator)``, e.g. ``CalvinExpert``; called for each chain.
        chains: how many of the benchmark's thousand, from its first on, or a list of chains.
        steps_per_subtask: control steps for each task; the benchmark grants 360.
        scene: the benchmark is scene ``"D"``; in other scenes, and for chains that it does not
            have, the initial scenes are fresh ones.
        image_size: see :class:`~rftf_torchrl.CalvinEnv`.
        wrist_size: see :class:`~rftf_torchrl.CalvinEnv`.
        depth: see :class:`~rftf_torchrl.CalvinEnv`.
        chunk_size: see :class:`~rftf_torchrl.CalvinEnv`.
        sentences: instructions by task, the first of which is used. The benchmark's are those of
            ``load_sentences(calvin_root, "validation")``; by default it is our own.
        make_env: builds the environment (for a controller the simulator) instead of what the
            arguments above say; picklable.
        transform: the policy's ``observation_transform()``, where it has one. An environment of
            ``make_env`` then has to write ``"language_instruction"``.
        deterministic: mean actions instead of samples.
        seed: of the policy's noise, 0 or more.
        workers: number of processes; 0 plays in this one.
        serve: whether the policy itself decides, in batches for all workers; see
            :class:`~rftf_torchrl.EpisodeCollector`.
        batch: with ``serve``, most decisions at once; ``None`` for the number of workers.
        wait: with ``serve``, seconds for which a batch waits for further workers.
        timeout: seconds without a sign of life after which a worker counts as hung.
        max_restarts: how many dead or hung workers to replace before giving up.
        resume_path: a file to which finished chains are added. If it exists, the chains in it are
            not played again; it must be of the same evaluation.
        on_start: called before the first chain, once the file is found to be of this evaluation.
        on_chain: called with each result as it comes, ``None`` for a crash, e.g. for a progress
            bar; not with those of the file.

    Returns:
        The report; it says whether this was the official protocol.

    Raises:
        ValueError: for both or neither of policy and controller. For no chain, an unknown task or
            scene, a task without an instruction, or a number that is too small. For a file of
            another evaluation, or a policy whose actions have other sizes than the environment's.
        TooManyCrashesError: when workers keep dying.
        RuntimeError: when a worker met a programming error.
        CalvinNotInstalledError: when calvin_env is missing and ``make_env`` is not given.
    """
    check_scene(scene)
    if policy is not None and controller is not None:
        raise ValueError("got a policy and a controller; give one of them")
    for name, value, least in (
        ("steps_per_subtask", steps_per_subtask, 1),
        ("seed", seed, 0),
        ("workers", workers, 0),
        ("max_restarts", max_restarts, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}")
    if timeout <= 0:
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
    chosen = benchmark_sequences(chains) if isinstance(chains, int) else list(chains)
    _check(chosen, sentences)
    if make_env is None:
        require_calvin_env()
    make_stage: Callable[[], ChainStage]
    deciding: AbstractContextManager[PolicyServer | None] = nullcontext()
    privileged: str | None
    own: dict[str, Any]
    if policy is not None:
        make_env = make_env or partial(
            CalvinEnv,
            scene=scene,
            image_size=image_size,
            wrist_size=wrist_size,
            depth=depth,
            chunk_size=chunk_size,
            horizon=-(-steps_per_subtask // (chunk_size or 1)),
            write_text=transform is not None,
        )
        shared = SharedPolicy(
            policy,
            workers=workers,
            serve=serve or not workers,
            batch=batch,
            wait=wait,
            timeout=timeout,
        )
        deciding = shared.server(deterministic)
        make_stage = partial(
            _policy_stage,
            make_env,
            transform,
            shared.actor,
            steps_per_subtask,
            deterministic,
            sentences,
        )
        read = [*policy.in_keys, *([] if transform is None else transform.in_keys)]
        pictures = any("image" in str(key) for key in read)
        privileged = None if pictures else "the policy"
        own = {
            "policy": policy_digest(policy),
            "transform": transform_label(transform),
            "env": function_name(make_env),
            "deterministic": deterministic,
            "sentences": sentences_label(sentences),
            "renderer": "PyBullet's TinyRenderer on the CPU" if pictures else "none",
        }
    elif controller is not None:
        make_simulator = make_env or partial(CalvinSimulator, scene)
        make_stage = partial(_controller_stage, make_simulator, controller, steps_per_subtask)
        privileged = "the controller"
        own = {
            "controller": function_name(controller),
            "simulator": function_name(make_simulator),
            "renderer": "none",
        }
    else:
        raise ValueError("got neither a policy nor a controller; give one of them")
    settings = {
        "steps_per_subtask": steps_per_subtask,
        "scene": scene,
        "chains": len(chosen),
        "chains_digest": chains_digest(chosen),
        "seed": seed,
        **own,
    }
    found = versions()
    file = None if resume_path is None else ChainFile(resume_path, {**settings, **found})
    if on_start is not None:
        on_start()
    results, crashed = play_unfinished(
        make_stage,
        partial(play_chain, scene=scene, seed=seed),
        chosen,
        file,
        on_chain,
        deciding=deciding,
        workers=workers,
        timeout=timeout,
        max_restarts=max_restarts,
    )
    label = protocol_label(
        steps=steps_per_subtask,
        chains=chosen,
        crashed=len(crashed),
        scene=scene,
        sentences=settings.get("sentences"),
        privileged=privileged,
    )
    return ChainReport(tuple(results), tuple(crashed), label, settings, found)


def _policy_stage(
    make_env: Callable[[], Any], transform: Transform | None, *rest: Any
) -> PolicyStage:
    env = make_env()
    return PolicyStage(env if transform is None else PolicyInputEnv(env, transform), *rest)


def _controller_stage(make_simulator: Callable[[], Any], *rest: Any) -> ControllerStage:
    return ControllerStage(make_simulator(), *rest)


def _check(chains: Sequence[Chain], sentences: Mapping[str, Sequence[str]] | None) -> None:
    if not chains:
        raise ValueError("there is no chain to evaluate; give at least one")
    for index, chain in enumerate(chains):
        if not chain.tasks:
            raise ValueError(f"chain {index} has no task; expected at least one")
        for task in chain.tasks:
            get_task(task)
            if sentences is not None and not sentences.get(task):
                raise ValueError(f"sentences has none for the task {task!r} of chain {index}")
