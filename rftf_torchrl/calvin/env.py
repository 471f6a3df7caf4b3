"""CALVIN as a TorchRL environment for vision-language-action policies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torchrl.data import Bounded, NonTensor, TensorSpec, Unbounded
from torchrl.envs import EnvBase

from rftf_torchrl import keys
from rftf_torchrl.calvin.observation import PRIVILEGED_DIM, PROPRIOCEPTION_DIM, state_vector
from rftf_torchrl.calvin.scenes import refuse_test_state
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.calvin.simulator import ACTION_DIM, CalvinSimulator
from rftf_torchrl.calvin.starts import States, default_states
from rftf_torchrl.calvin.state_bank import StateBank
from rftf_torchrl.calvin.tasks import TASKS, get_task
from rftf_torchrl.envs.decision import read_actions, reward_and_done, set_decision_specs
from rftf_torchrl.envs.episodes import Split
from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.transforms.instruction_tokens import HashTokenizer

SUBTASK_STEPS = 360
"""Control steps that the benchmark grants to a subtask."""

logger = logging.getLogger(__name__)


class CalvinEnv(EnvBase):
    """One CALVIN scene, in which any of the 34 tasks is played, from pixels or from the state.

    One step is one *decision*: a single action, or a chunk of ``chunk_size`` actions of 1/30 s
    each. Pictures are drawn once a decision, after the chunk. An episode terminates when
    calvin_env's oracle first finds the task done, also in the middle of a chunk, and is truncated
    after ``horizon`` decisions; ``executed`` says which actions of the chunk were carried out.

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
    - with ``write_text``, ``"language_instruction"``: the sentence, for a transform to consume.

    Args:
        task: CALVIN's name, e.g. ``"open_drawer"``; ``None`` draws one of the 34 at each reset
            from the episode's seed. :meth:`set_task` changes it.
        scene: ``"A"``, ``"B"``, ``"C"`` or ``"D"``.
        states: where episodes start: a function from (task, seed) to (``robot_obs`` [15],
            ``scene_obs`` [24]), or an object with such a method ``draw``, like ``StateBank``. By
            default the starts of chains, see :func:`~rftf_torchrl.default_states`.
        split: ``"train"`` refuses the benchmark's initial scenes, whatever ``states`` says.
        image_size: edge in pixels of the static camera's picture; ``None`` for none.
        wrist_size: edge in pixels of the gripper camera's picture; ``None`` for none.
        depth: whether to give distances beside the pictures.
        chunk_size: actions per decision; ``None`` takes a plain ``"action"`` [7] instead of
            ``("vla_action", "chunk")`` [chunk_size, 7].
        horizon: decisions after which an episode is truncated; by default as many as make up the
            benchmark's 360 control steps.
        instruction: the sentence; by default one of ``sentences``, or else our own of the task.
        sentences: sentences by task, one of which the episode's seed chooses.
        tokenizer: maps a sentence to (tokens [1, L], mask [1, L]).
        gripper: ``"sign"`` opens the gripper where its action is 0 or more and closes it
            otherwise; ``"strict"`` takes nothing but 1 and -1. The other six dimensions are
            clipped to [-1, 1].
        seed: start of the sequence of episodes that successive resets go through.
        write_text: whether to write ``"language_instruction"``. Strings must not leave the process
            or enter a storage: see :class:`~rftf_torchrl.PolicyInputEnv`.

    Raises:
        ValueError: for an unknown task, scene, split or gripper mode, a non-positive count, or
            depth without a camera.
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

    batch_locked = True

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
        gripper: Literal["sign", "strict"] = "sign",
        seed: int = 0,
        write_text: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        for name, value in (
            ("image_size", image_size),
            ("wrist_size", wrist_size),
            ("chunk_size", chunk_size),
            ("horizon", horizon),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if gripper not in ("sign", "strict"):
            raise ValueError(f"gripper must be 'sign' or 'strict', got {gripper!r}")
        self.has_camera = image_size is not None or wrist_size is not None
        if depth and not self.has_camera:
            raise ValueError("depth needs a camera: give image_size or wrist_size")
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {split!r}")
        super().__init__(device=device, batch_size=[])
        self.scene = scene
        self.split = split
        self.image_size = image_size
        self.wrist_size = wrist_size
        self.depth = depth
        self.chunk_size = chunk_size
        self.horizon = horizon or -(-SUBTASK_STEPS // (chunk_size or 1))
        self.gripper = gripper
        self.write_text = write_text
        source: Any = default_states(split, scene) if states is None else states
        self._draw_state: States = getattr(source, "draw", source)
        self._sentences = sentences or {}
        self._tokenizer = tokenizer or HashTokenizer()
        self._decisions = 0
        self._episode_seed = 0
        self.set_task(task)
        self.set_instruction(instruction)
        self._speak()
        self._simulator = CalvinSimulator(scene)
        self._start_info = self._simulator.info
        self._make_specs()
        self.set_seed(seed)

    @property
    def simulator(self) -> CalvinSimulator:
        """The simulator underneath, for experts and videos."""
        return self._simulator

    def set_task(self, task: str | None) -> None:
        """Play another task from the next reset on; ``None`` draws one at each reset."""
        self._draws_task = task is None
        self.task = get_task(next(iter(TASKS)) if task is None else task)

    def set_instruction(self, instruction: str | None) -> None:
        """Give this sentence from the next reset on; ``None`` gives one that fits the task."""
        self._fixed_instruction = instruction

    def _speak(self) -> None:
        """Choose the sentence of the episode."""
        if self._fixed_instruction is not None:
            self.instruction = self._fixed_instruction
        elif self.task.name in self._sentences:
            choices = self._sentences[self.task.name]
            rng = np.random.default_rng([self._episode_seed, self.task.id])
            self.instruction = choices[int(rng.integers(len(choices)))]
        else:
            self.instruction = self.task.instruction
        tokens, mask = self._tokenizer(self.instruction)
        self._tokens, self._mask = tokens[0], mask[0]

    def _make_specs(self) -> None:
        dim = PROPRIOCEPTION_DIM if self.has_camera else PRIVILEGED_DIM
        observation: dict[str, TensorSpec] = {"state": Unbounded([dim])}
        for prefix, size in (("", self.image_size), ("wrist_", self.wrist_size)):
            if size is not None:
                observation[f"{prefix}image"] = Bounded(
                    0, 255, shape=[3, size, size], dtype=torch.uint8
                )
                if self.depth:
                    observation[f"{prefix}depth"] = Unbounded([1, size, size])
        text: dict[NestedKey, TensorSpec] = {}
        if self.write_text:
            text[keys.INSTRUCTION_TEXT] = NonTensor(shape=[], example_data=self.instruction)
        set_decision_specs(
            self,
            observation,
            tokens=len(self._tokens),
            chunk_size=self.chunk_size,
            action_dim=ACTION_DIM,
            extra=text,
        )

    def _set_seed(self, seed: int | None) -> None:
        self._seeds = np.random.default_rng(0 if seed is None else seed)

    def _look(self) -> dict[str, torch.Tensor]:
        """What the policy sees of the simulator now."""
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
        return seen

    def _observe(self, *, success: bool, crashed: bool, executed: int) -> dict[str, Any]:
        return {
            **({keys.INSTRUCTION_TEXT: self.instruction} if self.write_text else {}),
            "observation": {key: value.clone() for key, value in self._seen.items()},
            "instruction": {"tokens": self._tokens.clone(), "mask": self._mask.clone()},
            keys.TASK_ID: torch.tensor([self.task.id]),
            "episode_seed": torch.tensor([self._episode_seed]),
            keys.SUCCESS: torch.tensor([success]),
            keys.CRASHED: torch.tensor([crashed]),
            "executed": torch.arange(self.chunk_size or 1) < executed,
        }

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        wanted = None if tensordict is None else tensordict.get("episode_seed", None)
        self._episode_seed = (
            int(self._seeds.integers(2**31)) if wanted is None else int(wanted.item())
        )
        if self._draws_task:
            number = np.random.default_rng(self._episode_seed).integers(len(TASKS))
            self.task = get_task(list(TASKS)[number])
        robot_obs, scene_obs = self._draw_state(self.task.name, self._episode_seed)
        if self.split == "train":
            refuse_test_state(scene_obs)
        try:
            self._simulator.reset(robot_obs, scene_obs)
        except SimulatorCrashedError as error:
            logger.warning("%s; a new simulator takes its place", error)
            self._simulator.close()
            self._simulator = CalvinSimulator(self.scene)
            self._simulator.reset(robot_obs, scene_obs)
        return self._start()

    def _start(self) -> TensorDictBase:
        """Begin a subtask at the simulator's present state."""
        self._start_info = self._simulator.info
        self._decisions = 0
        self._speak()
        self._seen = self._look()
        observed = self._observe(success=False, crashed=False, executed=self.chunk_size or 1)
        return TensorDict(observed, batch_size=[], device=self.device)

    def continue_chain(self, task: str, instruction: str | None = None) -> TensorDictBase:
        """Begin the next subtask of a chain where the last one ended, without a reset.

        The oracle compares with this moment from now on, and the count of decisions starts anew.

        Args:
            task: CALVIN's name of the next task.
            instruction: the sentence; ``None`` for one that fits the task.

        Returns:
            What a reset returns.
        """
        self.set_task(task)
        self.set_instruction(instruction)
        return self._start().update(self.full_done_spec.zero())

    def _actions(self, tensordict: TensorDictBase) -> np.ndarray:
        """The decision's actions, float64 [chunk_size or 1, 7], as the simulator takes them."""
        moment = (
            f"task {self.task.name!r}, episode seed {self._episode_seed}, decision "
            f"{self._decisions}"
        )
        given = read_actions(self, tensordict, moment)
        actions = np.clip(given.astype(np.float64).reshape(-1, ACTION_DIM), -1.0, 1.0)
        bad = np.argwhere(np.abs(given[..., -1:]) != 1.0)
        if self.gripper == "strict" and len(bad):
            index = (*bad[0][:-1].tolist(), ACTION_DIM - 1)
            raise ValueError(
                f"{self.action_key}{list(index)}, the gripper, must be 1 (open) or -1 (close), got "
                f"{given[index]}; gripper='sign' takes any number"
            )
        actions[:, -1] = np.where(actions[:, -1] >= 0.0, 1.0, -1.0)
        return actions

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        actions = self._actions(tensordict)
        success, crashed, executed = False, False, 0
        try:
            for action in actions:
                executed += 1
                self._simulator.step(action)
                if self._simulator.achieved(self._start_info, {self.task.name}):
                    success = True
                    break
            self._seen = self._look()
        except SimulatorCrashedError as error:
            logger.warning("%s", error)
            success, crashed = False, True
        self._decisions += 1
        truncated = crashed or self._decisions >= self.horizon
        out = self._observe(success=success, crashed=crashed, executed=executed)
        out |= reward_and_done(success=success, truncated=truncated)
        return TensorDict(out, batch_size=[], device=self.device)

    def picture(self, size: int) -> torch.Tensor:
        """What the static camera sees now at another size, uint8 [3, size, size], for videos."""
        return torch.from_numpy(self._simulator.picture(size))

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Free the simulator."""
        self._simulator.close()
        super().close(raise_if_closed=raise_if_closed)
