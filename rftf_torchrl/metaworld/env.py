"""Meta-World as a TorchRL environment for vision-language-action policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torchrl.data import Bounded, Unbounded

from rftf_torchrl import keys
from rftf_torchrl.envs.decision import DecisionBase
from rftf_torchrl.envs.episodes import Split
from rftf_torchrl.metaworld.simulator import MetaWorldSimulator
from rftf_torchrl.metaworld.tasks import get_task

ACTION_DIM = 4
_STATE_DIM = 39
_HAND_DIM = 4


class MetaWorldEnv(DecisionBase):
    """One Meta-World task from pixels and proprioception, or from the simulator's state alone.

    One step is one *decision*: a single action, or a chunk of ``chunk_size`` actions, each held
    for ``action_repeat`` simulator steps. The image is drawn once per decision, after the chunk.
    An episode terminates at the first success, also in the middle of a chunk, and is truncated
    after ``horizon`` decisions; ``executed`` says which actions of the chunk were carried out.

    Keys written (at the root after a reset, under ``"next"`` after a step):

    - ``("observation", "image")``: uint8 [3, image_size, image_size], absent when state-only;
    - ``("observation", "state")``: float32 [4], hand position in metres and gripper opening in
      [0, 1]; [39], Meta-World's goal-observable state, when state-only;
    - ``("instruction", "tokens")``, ``("instruction", "mask")``: int64 and bool [L];
    - ``"task_id"``, ``"episode_seed"``: int64 [1];
    - ``"success"``, ``"crashed"``: bool [1]; ``"executed"``: bool [chunk_size or 1];
    - ``"reward"``: float32 [1], 1 at success and 0 otherwise;
    - with ``write_text``, ``"language_instruction"``: the instruction, for a transform to consume;
    - with ``potential``, ``"env_potential"``: float32 [1], Meta-World's own dense reward of the
      state and of the action that led there, divided by 10, its highest value.

    Args:
        task: Meta-World's name without version, e.g. ``"drawer-open"``.
        split: ``"train"`` or ``"test"``; the two never share an initial state, see
            :class:`~rftf_torchrl.GoalSampler`.
        image_size: edge of the image in pixels; ``None`` for state-only mode (no rendering).
        chunk_size: actions per decision; ``None`` takes a plain ``"action"`` [4] instead of
            ``("vla_action", "chunk")`` [chunk_size, 4].
        action_repeat: simulator steps for which an action is held.
        horizon: decisions after which an episode is truncated.
        instruction: the task's text; by default the task's own. A different one makes an episode in
            which the scene and the goal belong to ``task`` and the words to something else.
        tokenizer: maps an instruction to (tokens [1, L], mask [1, L]).
        seed: start of the sequence of episodes that successive resets go through.
        potential: whether to write ``"env_potential"``.
        write_text: whether to write ``"language_instruction"``. Strings must not leave the process
            or enter a storage: see :class:`~rftf_torchrl.PolicyInputEnv`.

    Raises:
        ValueError: for an unknown task or split, or a non-positive count.
        ModuleNotFoundError: when Meta-World is not installed.
        NoOpenGLBackendError: when images are asked for and nothing can draw them.

    A reset takes an optional ``"episode_seed"`` int64 [1] in its tensordict and starts exactly
    that episode, whatever ran before.
    A step raises ``ValueError`` for an action of another shape than the action spec's, or with a
    number that is not finite.

    Example:
        >>> from rftf_torchrl import MetaWorldEnv
        >>> env = MetaWorldEnv("drawer-open", image_size=None, chunk_size=5)
        >>> env.rollout(2)["vla_action", "chunk"].shape
        torch.Size([2, 5, 4])
        >>> env.close()
    """

    def __init__(
        self,
        task: str,
        *,
        split: Split = "train",
        image_size: int | None = 64,
        chunk_size: int | None = None,
        action_repeat: int = 1,
        horizon: int = 100,
        instruction: str | None = None,
        tokenizer: Callable[[str], tuple[torch.Tensor, torch.Tensor]] | None = None,
        seed: int = 0,
        potential: bool = False,
        write_text: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            chunk_size=chunk_size,
            horizon=horizon,
            tokenizer=tokenizer,
            write_text=write_text,
            device=device,
            image_size=image_size,
            action_repeat=action_repeat,
        )
        self.task = get_task(task)
        self.image_size = image_size
        self.action_repeat = action_repeat
        self.potential = potential
        self._simulator = MetaWorldSimulator(self.task, split, render=image_size is not None)
        self.set_instruction(instruction)
        observation = {"state": Unbounded([_HAND_DIM if image_size else _STATE_DIM])}
        if image_size:
            shape = [3, image_size, image_size]
            observation["image"] = Bounded(0, 255, shape=shape, dtype=torch.uint8)
        extra = {keys.ENV_POTENTIAL: Unbounded([1])} if potential else {}
        self._prepare(observation, ACTION_DIM, seed=seed, extra=extra)

    @property
    def simulator(self) -> MetaWorldSimulator:
        """The simulator underneath, for experts and videos."""
        return self._simulator

    def _begin(self, episode_seed: int) -> None:
        self._simulator.reset(episode_seed)

    def _act(self, action: np.ndarray) -> tuple[bool, bool, bool]:
        done = any(self._simulator.step(action) for _ in range(self.action_repeat))
        return done, done, False

    def _see(self) -> dict[str, Any]:
        simulator = self._simulator
        state = simulator.proprioception if self.image_size else simulator.state
        observation = {"state": torch.as_tensor(state, dtype=torch.float32)}
        if self.image_size:
            observation["image"] = torch.from_numpy(simulator.picture(self.image_size))
        seen: dict[str, Any] = {"observation": observation}
        if self.potential:
            seen[keys.ENV_POTENTIAL] = torch.tensor([simulator.dense_reward / 10])
        return seen

    def picture(self, size: int) -> torch.Tensor:
        """The camera's present image at another size, uint8 [3, size, size], for videos."""
        return torch.from_numpy(self._simulator.picture(size))

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Free the simulator and its OpenGL contexts."""
        self._simulator.close()
        super().close(raise_if_closed=raise_if_closed)
