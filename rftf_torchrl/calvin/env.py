"""CALVIN as a TorchRL environment for vision-language-action policies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torchrl.data import Bounded, TensorSpec, Unbounded

from rftf_torchrl.calvin.observation import PRIVILEGED_DIM, PROPRIOCEPTION_DIM, state_vector
from rftf_torchrl.calvin.scenes import refuse_test_state
from rftf_torchrl.calvin.sequences import starting_states
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.calvin.simulator import ACTION_DIM, CalvinSimulator
from rftf_torchrl.calvin.starts import States, default_states
from rftf_torchrl.calvin.state_bank import StateBank
from rftf_torchrl.calvin.tasks import TASKS, get_task
from rftf_torchrl.envs.decision import DecisionBase
from rftf_torchrl.envs.episodes import Split, check_split
from rftf_torchrl.errors import SimulatorCrashedError

SUBTASK_STEPS = 360
"""Control steps that the benchmark grants to a subtask."""

logger = logging.getLogger(__name__)


class CalvinEnv(DecisionBase):
    """One CALVIN scene, in which any of the 34 tasks is played, from pixels or from the state.

    One step is one *decision*: a single action, or a chunk of ``chunk_size`` actions of 1/30 s
    each. Images are drawn once per decision, after the chunk. An episode terminates when
    calvin_env's oracle first finds the task done, also in the middle of a chunk, and is truncated
    after ``horizon`` decisions; ``executed`` says which actions of the chunk were carried out.
    Actions are clipped to [-1, 1], and the gripper opens where its number is 0 or more.

    Keys written (at the root after a reset, under ``"next"`` after a step):

    - ``("observation", "image")``, ``("observation", "wrist_image")``: uint8 [3, size, size], of
      the cameras that have a size;
    - ``("observation", "depth")``, ``("observation", "wrist_depth")``: float32 [1, size, size],
      metres, of those cameras when ``depth`` is asked for;
    - ``("observation", "state")``: float32 [11] proprioception; [53] with the scene's state when
      there is no camera, see :func:`~rftf_torchrl.state_vector`;
    - ``("instruction", "tokens")``, ``("instruction", "mask")``: int64 and bool [L];
    - ``"task_id"``, ``"episode_seed"``: int64 [1];
    - ``"success"``, ``"crashed"``: bool [1]; ``"executed"``: bool [chunk_size or 1];
    - ``"reward"``: float32 [1], 1 at success and 0 otherwise;
    - with ``write_text``, ``"language_instruction"``: the instruction, for a transform to consume.

    Args:
        task: CALVIN's name, e.g. ``"open_drawer"``; ``None`` draws one at each reset from the
            episode's seed: of the 34, or, without ``states``, of those with which a chain can
            start. :meth:`set_task` changes it.
        scene: ``"A"``, ``"B"``, ``"C"`` or ``"D"``.
        states: where episodes start: a function from (task, seed) to (``robot_obs`` [15],
            ``scene_obs`` [24]), or an object with such a method ``draw``, like ``StateBank``. By
            default the starts of chains, see :func:`~rftf_torchrl.default_states`.
        split: ``"train"`` refuses the benchmark's initial scenes, whatever ``states`` says.
        image_size: edge in pixels of the static camera's image; ``None`` for none.
        wrist_size: edge in pixels of the gripper camera's image; ``None`` for none.
        depth: whether to give distances beside the images.
        chunk_size: actions per decision; ``None`` takes a plain ``"action"`` [7] instead of
            ``("vla_action", "chunk")`` [chunk_size, 7].
        horizon: decisions after which an episode is truncated; by default as many as make up the
            benchmark's 360 control steps.
        instruction: the task's text; by default one of ``sentences``, or else our own of the task.
        sentences: instructions by task, one of which the episode's seed chooses.
        tokenizer: maps an instruction to (tokens [1, L], mask [1, L]).
        seed: start of the sequence of episodes that successive resets go through.
        write_text: whether to write ``"language_instruction"``. Strings must not leave the process
            or enter a storage: see :class:`~rftf_torchrl.PolicyInputEnv`.

    Raises:
        ValueError: for an unknown task, scene or split, a non-positive count, depth without a
            camera, or a bank of another scene.
        CalvinNotInstalledError: when calvin_env, or a file of the scene in it, is missing.

    A reset takes an optional ``"episode_seed"`` int64 [1] in its tensordict and starts exactly
    that episode of the task, whatever ran before, to the bit.
    A step raises ``ValueError`` for an action of another shape than the action spec's, or with a
    number that is not finite.

    Example:
        >>> from rftf_torchrl import CalvinEnv
        >>> from rftf_torchrl import CalvinNotInstalledError
        >>> try:
        ...     env = CalvinEnv("open_drawer", image_size=None, chunk_size=5)
        ...     shape = env.rollout(2)["vla_action", "chunk"].shape
        ...     env.close()
        ... except CalvinNotInstalledError:
        ...     shape = (2, 5, 7)
        >>> tuple(shape)
        (2, 5, 7)
    """

    def __init__(
        self,
        task: str | None = None,
        *,
        scene: Scene = "D",
        states: States | StateBank | None = None,
        split: Split = "train",
        image_size: int | None = 64,
        wrist_size: int | None = None,
        depth: bool = False,
        chunk_size: int | None = None,
        horizon: int | None = None,
        instruction: str | None = None,
        sentences: Mapping[str, Sequence[str]] | None = None,
        tokenizer: Callable[[str], tuple[torch.Tensor, torch.Tensor]] | None = None,
        seed: int = 0,
        write_text: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            chunk_size=chunk_size,
            horizon=-(-SUBTASK_STEPS // (chunk_size or 1)) if horizon is None else horizon,
            tokenizer=tokenizer,
            write_text=write_text,
            device=device,
            image_size=image_size,
            wrist_size=wrist_size,
        )
        self.has_camera = image_size is not None or wrist_size is not None
        if depth and not self.has_camera:
            raise ValueError("depth needs a camera: give image_size or wrist_size")
        check_split(split)
        self.scene = scene
        self.split = split
        self.image_size = image_size
        self.wrist_size = wrist_size
        self.depth = depth
        if isinstance(states, StateBank) and states.scene != scene:
            raise ValueError(
                f"states is a bank of scene {states.scene}, and the environment is scene {scene}, "
                "where furniture and blocks lie elsewhere: give a bank of that scene"
            )
        source: Any = default_states(split, scene) if states is None else states
        self._draw_state: States = getattr(source, "draw", source)
        self._drawn = [name for name in TASKS if states is not None or starting_states(name)]
        self._sentences = sentences or {}
        self.set_task(task)
        self.set_instruction(instruction)
        self._speak()
        self._simulator = CalvinSimulator(scene)
        self._start_info = self._simulator.info
        self._prepare(self._observation_specs(), ACTION_DIM, seed=seed)

    @property
    def simulator(self) -> CalvinSimulator:
        """The simulator underneath, for experts and videos."""
        return self._simulator

    def set_task(self, task: str | None) -> None:
        """Play another task, to be followed by a reset; ``None`` draws one at each reset."""
        self._reset_task = task
        self.task = get_task(self._drawn[0] if task is None else task)

    def set_instruction(self, instruction: str | None) -> None:
        """Give this instruction from the next reset on; ``None`` gives one that fits the task."""
        self._fixed_instruction = instruction

    def _speak(self) -> None:
        """Choose the instruction of the episode."""
        if self._fixed_instruction is not None:
            self._say(self._fixed_instruction)
        elif self.task.name in self._sentences:
            choices = self._sentences[self.task.name]
            rng = np.random.default_rng([self._episode_seed, self.task.id])
            self._say(choices[int(rng.integers(len(choices)))])
        else:
            self._say(self.task.instruction)

    def _observation_specs(self) -> dict[str, TensorSpec]:
        dim = PROPRIOCEPTION_DIM if self.has_camera else PRIVILEGED_DIM
        specs: dict[str, TensorSpec] = {"state": Unbounded([dim])}
        for prefix, size in (("", self.image_size), ("wrist_", self.wrist_size)):
            if size is not None:
                shape = [3, size, size]
                specs[f"{prefix}image"] = Bounded(0, 255, shape=shape, dtype=torch.uint8)
                if self.depth:
                    specs[f"{prefix}depth"] = Unbounded([1, size, size])
        return specs

    def _see(self) -> dict[str, Any]:
        simulator = self._simulator
        state = state_vector(
            simulator.robot_obs, simulator.scene_obs, self.scene, privileged=not self.has_camera
        )
        seen = {"state": torch.from_numpy(state)}
        if self.image_size is not None:
            seen["image"] = torch.from_numpy(simulator.picture(self.image_size))
            if self.depth:
                seen["depth"] = torch.from_numpy(simulator.depth(self.image_size))[None]
        if self.wrist_size is not None:
            seen["wrist_image"] = torch.from_numpy(simulator.wrist_picture(self.wrist_size))
            if self.depth:
                seen["wrist_depth"] = torch.from_numpy(simulator.wrist_depth(self.wrist_size))[None]
        return {"observation": seen}

    def _begin(self, episode_seed: int) -> None:
        task = self._reset_task
        if task is None:
            task = self._drawn[np.random.default_rng(episode_seed).integers(len(self._drawn))]
        self.task = get_task(task)
        robot_obs, scene_obs = self._draw_state(self.task.name, episode_seed)
        if self.split == "train":
            refuse_test_state(scene_obs)
        try:
            self._simulator.reset(robot_obs, scene_obs)
        except SimulatorCrashedError as error:
            logger.warning("%s; a new simulator takes its place", error)
            self._simulator.close()
            self._simulator = CalvinSimulator(self.scene)
            self._simulator.reset(robot_obs, scene_obs)

    def _start(self) -> TensorDictBase:
        self._start_info = self._simulator.info
        self._speak()
        return super()._start()

    def continue_chain(self, task: str, instruction: str | None = None) -> TensorDictBase:
        """Begin the next subtask of a chain where the last one ended, without a reset.

        From now on the oracle compares with this moment, and the count of decisions starts at zero.
        The next reset plays the environment's own task again.

        Args:
            task: CALVIN's name of the next task.
            instruction: the task's text; ``None`` for one that fits the task.

        Returns:
            What a reset returns.
        """
        self.task = get_task(task)
        at_reset, self._fixed_instruction = self._fixed_instruction, instruction
        try:
            return self._start().update(self.full_done_spec.zero())
        finally:
            self._fixed_instruction = at_reset

    def _act(self, action: np.ndarray) -> tuple[bool, bool, bool]:
        action = np.clip(action.astype(np.float64), -1.0, 1.0)
        action[-1] = 1.0 if action[-1] >= 0.0 else -1.0
        self._simulator.step(action)
        done = bool(self._simulator.achieved(self._start_info, {self.task.name}))
        return done, done, False

    def picture(self, size: int) -> torch.Tensor:
        """The static camera's present image at another size, uint8 [3, size, size], for videos."""
        return torch.from_numpy(self._simulator.picture(size))

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Free the simulator."""
        self._simulator.close()
        super().close(raise_if_closed=raise_if_closed)
