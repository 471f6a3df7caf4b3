"""Any TorchRL environment as one that acts in decisions and has an instruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torch.nn.functional import interpolate, one_hot
from torchrl.data import Bounded, OneHot, Unbounded
from torchrl.envs import EnvBase

from rftf_torchrl.data.format import Task
from rftf_torchrl.envs.decision import DecisionBase
from rftf_torchrl.envs.episodes import Split, check_split
from rftf_torchrl.keys import nested_keys


class DecisionEnv(DecisionBase):
    """A TorchRL environment with one action a step, played in chunks of actions.

    One step is one *decision*: a single action, or a chunk of ``chunk_size`` actions. An episode
    terminates at the first success or where the environment terminates, and is truncated after
    ``horizon`` decisions or where the environment truncates it. Actions are in [-1, 1], which are
    the bounds of the environment's; of a discrete action the largest of n numbers is taken.

    The keys are those of :class:`~rftf_torchrl.MetaWorldEnv`, without the dense reward.

    Args:
        env: the environment, of batch size [].
        task: number, name and instruction.
        split: ``"train"`` or ``"test"``: episode seed s is the environment's seed 2 s in training
            and 2 s + 1 in testing, so that the two never share a seed.
        state_key: the environment's entry that becomes ``("observation", "state")``, float [S].
        image_key: the entry that becomes the image, uint8 [H, W, 3] or [3, H, W].
        image_size: edge of the image in pixels; ``None`` for none.
        success_key: the entry that says whether the task is done; ``None``: a termination does.
        chunk_size: actions per decision; ``None`` takes a plain ``"action"``.
        horizon: decisions after which an episode is truncated.
        instruction: the task's text; by default the task's own.
        tokenizer: maps an instruction to (tokens [1, L], mask [1, L]); a
            :class:`~rftf_torchrl.HashTokenizer` of 16 words by default.
        write_text: whether to write ``"language_instruction"``.

    Raises:
        ValueError: for another split, a batch of environments, an entry that the environment does
            not have, or an action that is neither bounded nor one-hot.

    Example:
        >>> from torchrl.envs import GymEnv
        >>> task = Task(0, "hill", "drive up the hill")
        >>> env = DecisionEnv(GymEnv("MountainCarContinuous-v0"), task, chunk_size=4)
        >>> env.rollout(2)["observation", "state"].shape
        torch.Size([2, 2])
    """

    @nested_keys
    def __init__(
        self,
        env: EnvBase,
        task: Task,
        *,
        split: Split = "train",
        state_key: NestedKey = "observation",
        image_key: NestedKey = "pixels",
        image_size: int | None = None,
        success_key: NestedKey | None = None,
        chunk_size: int | None = None,
        horizon: int = 100,
        instruction: str | None = None,
        tokenizer: Callable[[str], tuple[Tensor, Tensor]] | None = None,
        write_text: bool = False,
    ) -> None:
        check_split(split)
        if env.batch_size:
            raise ValueError(f"the environment has batch size {tuple(env.batch_size)}, not []")
        super().__init__(
            chunk_size=chunk_size,
            horizon=horizon,
            tokenizer=tokenizer,
            write_text=write_text,
            image_size=image_size,
        )
        self.env = env
        self.task = task
        self.split = split
        self.state_key = state_key
        self.image_key = image_key
        self.image_size = image_size
        self.success_key = success_key
        self._action = env.full_action_spec[env.action_key]
        if not isinstance(self._action, (Bounded, OneHot)):
            raise ValueError(
                f"the action of task {task.name!r} is {self._action}; expected a bounded one, or a "
                "one-hot one"
            )
        known = [*env.observation_spec.keys(True, True), *env.done_keys]
        read = {"state_key": state_key, "success_key": success_key}
        read |= {} if image_size is None else {"image_key": image_key}
        for argument, key in read.items():
            if key is not None and key not in known:
                raise ValueError(
                    f"the environment of task {task.name!r} has no {key!r} ({argument}); it has "
                    f"{', '.join(map(repr, known))}"
                )
        self.set_instruction(instruction)
        self._current: TensorDictBase = TensorDict()
        size = env.observation_spec[state_key].shape.numel()
        observation: dict[str, Any] = {"state": Unbounded([size])}
        if image_size is not None:
            shape = [3, image_size, image_size]
            observation["image"] = Bounded(0, 255, shape=shape, dtype=torch.uint8)
        self._prepare(observation, self._action.shape.numel(), seed=0)

    def picture(self, size: int) -> Tensor:
        """The environment's image at another size, uint8 [3, size, size]."""
        picture = self._current[self.image_key]
        if picture.dtype != torch.uint8:
            raise ValueError(
                f"the image of task {self.task.name!r} at {self.image_key!r} is {picture.dtype}, "
                "expected uint8 in 0..255: scale and convert it in the environment"
            )
        if picture.shape[-1] == 3:
            picture = picture.movedim(-1, 0)
        scaled = interpolate(picture.float()[None], size=(size, size), mode="area")
        return scaled[0].round().clamp(0, 255).to(torch.uint8)

    def _begin(self, episode_seed: int) -> None:
        own = 2 * episode_seed + (self.split == "test")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(own)
            self.env.set_seed(own, static_seed=True)
            self._current = self.env.reset()

    def _act(self, action: np.ndarray) -> tuple[bool, bool, bool]:
        self._current.set(self.env.action_key, self._own_action(torch.from_numpy(action)))
        self._current = self.env.step(self._current)["next"]
        terminated = bool(self._current["terminated"])
        key = self.success_key
        success = terminated if key is None else bool(self._current[key])
        return success, terminated, bool(self._current["done"]) and not terminated

    def _see(self) -> dict[str, Any]:
        observation = {"state": self._current[self.state_key].reshape(-1).float()}
        if self.image_size is not None:
            observation["image"] = self.picture(self.image_size)
        return {"observation": observation}

    def _own_action(self, action: Tensor) -> Tensor:
        """An action in [-1, 1] in the environment's own bounds, or as a one-hot vector."""
        if isinstance(self._action, OneHot):
            return one_hot(action.argmax(), len(action)).to(self._action.dtype)
        low, high = self._action.space.low, self._action.space.high
        share = (action.clamp(-1, 1).reshape(low.shape) + 1) / 2
        own: Tensor = (low + share * (high - low)).to(self._action.dtype)
        return own

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close the environment inside."""
        self.env.close(raise_if_closed=raise_if_closed)
        super().close(raise_if_closed=raise_if_closed)
