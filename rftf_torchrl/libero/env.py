"""LIBERO as a TorchRL environment for vision-language-action policies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torchrl.data import Bounded, TensorSpec, Unbounded

from rftf_torchrl.envs.decision import DecisionBase
from rftf_torchrl.envs.episodes import Split, check_split
from rftf_torchrl.libero.observation import (
    PRIVILEGED_DIM,
    PROPRIOCEPTION_DIM,
    libero_state_vector,
    proprioception,
)
from rftf_torchrl.libero.simulator import ACTION_DIM, WRIST_CAMERA, LiberoSimulator, Pictures
from rftf_torchrl.libero.starts import FreshStarts, Starts, refuse_official_state
from rftf_torchrl.libero.suites import get_task, libero_tasks
from rftf_torchrl.transforms.instruction_tokens import HashTokenizer

LIBERO_TOKENIZER = HashTokenizer(max_length=24)  # the longest instruction has 19 words


class LiberoEnv(DecisionBase):
    """One LIBERO suite, of which any task is played, from pixels or from the state.

    One step is one *decision*: a single action, or a chunk of ``chunk_size`` actions of 1/20 s
    each. Images are drawn once per decision, after the chunk. An episode terminates when LIBERO
    first finds the goal fulfilled, also in the middle of a chunk, and is truncated after
    ``horizon`` decisions or ``max_steps`` actions; ``executed`` says which actions of the chunk
    were carried out. Actions are clipped to [-1, 1]: displacement of the hand in units of 5 cm,
    rotation vector in units of 0.5 rad, and the gripper, which **-1 opens and +1 closes**.

    Keys written (at the root after a reset, under ``"next"`` after a step):

    - ``("observation", "image")``, ``("observation", "wrist_image")``: uint8 [3, image_size,
      image_size], rotated by 180 degrees as all VLA code has them;
    - ``("observation", "state")``: float32 [8], hand position, its axis-angle and two finger
      positions; without images [80], see :func:`~rftf_torchrl.libero_state_vector`;
    - ``("instruction", "tokens")``, ``("instruction", "mask")``: int64 and bool [L];
    - ``"task_id"``, ``"episode_seed"``: int64 [1];
    - ``"success"``, ``"crashed"``: bool [1]; ``"executed"``: bool [chunk_size or 1];
    - ``"reward"``: float32 [1], 1 at success and 0 otherwise;
    - with ``write_text``, ``"language_instruction"``: the instruction, for a transform to consume.

    Args:
        task: the task's name; ``None`` draws one of the suite's at each reset from the episode's
            seed. :meth:`set_task` changes it.
        suite: the suite, e.g. ``"libero_object"``.
        split: ``"train"`` refuses the official initial states, whatever ``starts`` says.
        starts: where episodes start, a function from a task's name and an episode's seed to a
            :class:`~rftf_torchrl.LiberoStart`; by default new random states from the regions of the
            task's definition; the two splits share none.
        image_size: edge of the images in pixels; ``None`` for none.
        wrist: whether to draw what the camera at the gripper sees, too.
        pictures: ``"exact"``, ``"plain"`` or ``"fast"``, see
            :class:`~rftf_torchrl.LiberoSimulator`.
        chunk_size: actions per decision; ``None`` takes a plain ``"action"`` [7] instead of
            ``("vla_action", "chunk")`` [chunk_size, 7].
        horizon: decisions after which an episode is truncated.
        max_steps: actions after which it is, also in the middle of a chunk; ``None`` for no limit.
        kept: simulators to keep for tasks that come again, at 1.0 to 1.6 GB each; that of the task
            that was not played for longest is closed.
        instruction: the task's text; by default the task's own.
        tokenizer: maps an instruction to (tokens [1, L], mask [1, L]).
        seed: start of the sequence of episodes that successive resets go through.
        write_text: whether to write ``"language_instruction"``. Strings must not leave the process
            or enter a storage: see :class:`~rftf_torchrl.PolicyInputEnv`.

    Raises:
        ValueError: for an unknown task, suite, split or way to draw, a non-positive count, or a
            wrist camera without images.
        LiberoNotInstalledError: when LIBERO is missing.
        NoOpenGLBackendError: when images are asked for and nothing can draw them.

    A reset takes an optional ``"episode_seed"`` int64 [1] in its tensordict and starts exactly
    that episode of the task, whatever ran before, to the bit.
    A step raises ``ValueError`` for an action of another shape than the action spec's, or with a
    number that is not finite.

    Example:
        >>> from rftf_torchrl import LiberoEnv
        >>> from rftf_torchrl import LiberoNotInstalledError
        >>> try:
        ...     env = LiberoEnv("turn_on_the_stove", suite="libero_goal", image_size=None)
        ...     shape = env.rollout(2)["observation", "state"].shape
        ...     env.close()
        ... except LiberoNotInstalledError:
        ...     shape = (2, 80)
        >>> tuple(shape)
        (2, 80)
    """

    def __init__(
        self,
        task: str | None = None,
        *,
        suite: str = "libero_object",
        split: Split = "train",
        starts: Starts | None = None,
        image_size: int | None = 128,
        wrist: bool = False,
        pictures: Pictures = "exact",
        chunk_size: int | None = None,
        horizon: int = 300,
        max_steps: int | None = None,
        kept: int = 1,
        instruction: str | None = None,
        tokenizer: Callable[[str], tuple[torch.Tensor, torch.Tensor]] | None = None,
        seed: int = 0,
        write_text: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            chunk_size=chunk_size,
            horizon=horizon,
            tokenizer=tokenizer or LIBERO_TOKENIZER,
            write_text=write_text,
            device=device,
            image_size=image_size,
            max_steps=max_steps,
            kept=kept,
        )
        check_split(split)
        if wrist and image_size is None:
            raise ValueError("wrist needs images: give image_size")
        self.suite = suite
        self.split = split
        self.image_size = image_size
        self.wrist = wrist
        self.pictures = pictures
        self.max_steps = max_steps
        self.kept = kept
        self._starts = FreshStarts(split) if starts is None else starts
        self._simulators: OrderedDict[str, LiberoSimulator] = OrderedDict()
        self._steps = 0
        self.set_task(task)
        self.set_instruction(instruction)
        self._simulator = self._simulator_of(self.task.name)
        self._prepare(self._observation_specs(), ACTION_DIM, seed=seed)

    @property
    def simulator(self) -> LiberoSimulator:
        """The simulator of the present task, for experts and videos."""
        return self._simulator

    def set_task(self, task: str | None) -> None:
        """Play another task with its own instruction, before a reset; ``None`` draws one."""
        self._draws_task = task is None
        tasks = libero_tasks(self.suite)
        self.task = get_task(self.suite, next(iter(tasks)) if task is None else task)
        self.set_instruction(None)

    def set_instruction(self, instruction: str | None) -> None:
        """Give another instruction, before a reset; ``None`` gives each task's own."""
        self._given = instruction
        super().set_instruction(instruction)

    def _simulator_of(self, task: str) -> LiberoSimulator:
        if task in self._simulators:
            self._simulators.move_to_end(task)
        else:
            while len(self._simulators) >= self.kept:
                self._simulators.popitem(last=False)[1].close()
            self._simulators[task] = LiberoSimulator(
                self.suite, task, pictures=self.pictures, render=self.image_size is not None
            )
        return self._simulators[task]

    def _observation_specs(self) -> dict[str, TensorSpec]:
        if self.image_size is None:
            return {"state": Unbounded([PRIVILEGED_DIM])}
        picture = Bounded(0, 255, shape=[3, self.image_size, self.image_size], dtype=torch.uint8)
        specs: dict[str, TensorSpec] = {"state": Unbounded([PROPRIOCEPTION_DIM]), "image": picture}
        if self.wrist:
            specs["wrist_image"] = picture.clone()
        return specs

    def _begin(self, episode_seed: int) -> None:
        if self._draws_task:
            tasks = list(libero_tasks(self.suite))
            self.task = get_task(
                self.suite, tasks[np.random.default_rng(episode_seed).integers(len(tasks))]
            )
            self.set_instruction(self._given)
        start = self._starts(self.task.name, episode_seed)
        self._simulator = self._simulator_of(self.task.name)
        self._simulator.reset(start.seed, start.state)
        if self.split == "train":
            refuse_official_state(self.suite, self.task.name, self._simulator.start)
        self._steps = 0

    def _act(self, action: np.ndarray) -> tuple[bool, bool, bool]:
        done = self._simulator.step(action)
        self._steps += 1
        return done, done, self._steps == self.max_steps

    def _see(self) -> dict[str, Any]:
        simulator, size = self._simulator, self.image_size
        if size is None:
            return {"observation": {"state": torch.from_numpy(libero_state_vector(simulator))}}
        seen = {
            "state": torch.from_numpy(proprioception(simulator.observed)),
            "image": torch.from_numpy(simulator.picture(size)),
        }
        if self.wrist:
            seen["wrist_image"] = torch.from_numpy(simulator.picture(size, WRIST_CAMERA))
        return {"observation": seen}

    def picture(self, size: int) -> torch.Tensor:
        """The camera's present image at another size, uint8 [3, size, size], for videos."""
        return torch.from_numpy(self._simulator.picture(size))

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Free the simulators."""
        while self._simulators:
            self._simulators.popitem()[1].close()
        super().close(raise_if_closed=raise_if_closed)
