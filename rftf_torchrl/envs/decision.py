"""What environments that act in decisions share: specs, actions, episodes, how a step ends."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, NonTensor, Unbounded
from torchrl.envs import EnvBase

from rftf_torchrl import keys
from rftf_torchrl.data.format import Task
from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.nets.sentences import normal_sentence
from rftf_torchrl.transforms.instruction_tokens import HashTokenizer

logger = logging.getLogger(__name__)


class DecisionBase(EnvBase):
    """An environment that acts in decisions and has an instruction.

    A subclass has a ``task`` before it calls :meth:`_prepare`, starts an episode in :meth:`_begin`,
    carries out an action in :meth:`_act`, and says in :meth:`_see` what is seen then.

    Args:
        chunk_size: actions per decision; ``None`` takes a plain ``"action"``.
        horizon: decisions after which an episode is truncated.
        tokenizer: maps an instruction to (tokens [1, L], mask [1, L]).
        write_text: whether to write ``"language_instruction"``.
        device: of the environment's tensors.
        counts: further numbers that must be at least 1 where they are given.

    Raises:
        ValueError: for a count below 1.
    """

    batch_locked = True
    task: Task

    def __init__(
        self,
        *,
        chunk_size: int | None,
        horizon: int,
        tokenizer: Callable[[str], tuple[Tensor, Tensor]] | None = None,
        write_text: bool = False,
        device: torch.device | str | None = None,
        **counts: int | None,
    ) -> None:
        for name, value in {**counts, "chunk_size": chunk_size, "horizon": horizon}.items():
            if value is not None and not isinstance(value, Integral):
                raise ValueError(f"{name} must be a whole number, got {value}")
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        super().__init__(device=device, batch_size=[])
        self.chunk_size = chunk_size
        self.horizon = horizon
        self.write_text = write_text
        self._tokenizer = tokenizer or HashTokenizer()
        self._decisions = 0
        self._episode_seed = 0
        self._on_action: Callable[[], object] | None = None

    def _prepare(
        self,
        observation: Mapping[str, Any],
        action_dim: int,
        *,
        seed: int,
        extra: Mapping[Any, Any] | None = None,
    ) -> None:
        """Set the specs, of those below ``"observation"`` and further ones, and the seed."""
        tokens = [len(self._tokens)]
        flag = Binary(shape=[1], dtype=torch.bool)
        number = Unbounded([1], dtype=torch.int64)
        text = {keys.INSTRUCTION_TEXT: NonTensor(shape=[], example_data=self.instruction)}
        self.observation_spec = Composite(
            {
                "observation": Composite(dict(observation)),
                "instruction": Composite(
                    tokens=Unbounded(tokens, dtype=torch.int64),
                    mask=Binary(shape=tokens, dtype=torch.bool),
                ),
                keys.TASK_ID: number.clone(),
                "episode_seed": number.clone(),
                keys.SUCCESS: flag.clone(),
                keys.CRASHED: flag.clone(),
                "executed": Binary(shape=[self.chunk_size or 1], dtype=torch.bool),
                **(extra or {}),
                **(text if self.write_text else {}),
            }
        )
        # TransformedEnv hands nothing but state keys on to the reset of the environment inside.
        self.state_spec = Composite(episode_seed=number)
        self.reward_spec = Unbounded([1])
        self.done_spec = Composite(done=flag, terminated=flag.clone(), truncated=flag.clone())
        if self.chunk_size is None:
            self.action_spec = Bounded(-1.0, 1.0, shape=[action_dim])
        else:
            chunk = Bounded(-1.0, 1.0, shape=[self.chunk_size, action_dim])
            self.action_spec = Composite(vla_action=Composite(chunk=chunk))
        self._action_key = self.action_key
        self._action_shape = tuple(self.full_action_spec[self._action_key].shape)
        self.set_seed(seed)

    @abstractmethod
    def _begin(self, episode_seed: int) -> None:
        """Put the simulator where the episode of this seed starts."""

    @abstractmethod
    def _act(self, action: np.ndarray) -> tuple[bool, bool, bool]:
        """Carry out one action: is the task done, is the episode terminated, is it truncated?"""

    @abstractmethod
    def _see(self) -> dict[str, Any]:
        """What is seen now: ``"observation"``, and entries of the subclass's own."""

    def watch(self, on_action: Callable[[], object] | None) -> None:
        """Call a function after each action, e.g. to record it; ``None`` calls none."""
        self._on_action = on_action

    def set_instruction(self, instruction: str | None) -> None:
        """Give another instruction, before a reset; ``None`` gives the task's own."""
        self._say(self.task.instruction if instruction is None else instruction)

    def _say(self, instruction: str) -> None:
        self.instruction = normal_sentence(instruction)
        tokens, mask = self._tokenizer(self.instruction)
        self._tokens, self._mask = tokens[0], mask[0]

    def _set_seed(self, seed: int | None) -> None:
        self._seeds = np.random.default_rng(0 if seed is None else seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        wanted = None if tensordict is None else tensordict.get("episode_seed", None)
        self._episode_seed = int(self._seeds.integers(2**31) if wanted is None else wanted.item())
        self._begin(self._episode_seed)
        return self._start()

    def _start(self) -> TensorDictBase:
        """Begin to count decisions, from what is seen now."""
        self._decisions = 0
        self._seen = self._see()
        return self._observed(executed=self.chunk_size or 1)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        actions = self._actions(tensordict)
        success, terminated, truncated, crashed, executed = False, False, False, False, 0
        try:
            for action in actions:
                executed += 1
                success, terminated, truncated = self._act(action)
                if self._on_action is not None:
                    self._on_action()
                if success or terminated or truncated:
                    break
            self._seen = self._see()
        except SimulatorCrashedError as error:
            logger.warning("%s", error)
            success, terminated, crashed = False, False, True
        self._decisions += 1
        terminated |= success
        over = truncated or crashed or self._decisions >= self.horizon
        return self._observed(
            success=success,
            crashed=crashed,
            executed=executed,
            reward=torch.tensor([float(success)]),
            terminated=torch.tensor([terminated]),
            truncated=torch.tensor([over and not terminated]),
            done=torch.tensor([terminated or over]),
        )

    def _observed(
        self, *, executed: int, success: bool = False, crashed: bool = False, **end: Tensor
    ) -> TensorDictBase:
        found = {
            **end,
            **_copied({**self._seen, "instruction": {"tokens": self._tokens, "mask": self._mask}}),
            keys.TASK_ID: torch.tensor([self.task.id]),
            "episode_seed": torch.tensor([self._episode_seed]),
            keys.SUCCESS: torch.tensor([success]),
            keys.CRASHED: torch.tensor([crashed]),
            "executed": torch.arange(self.chunk_size or 1) < executed,
        }
        if self.write_text:
            found[keys.INSTRUCTION_TEXT] = self.instruction
        return TensorDict(found, batch_size=[], device=self.device)

    def _actions(self, tensordict: TensorDictBase) -> np.ndarray:
        """The decision's actions, [chunk_size or 1, action_dim].

        Another shape than the spec's is refused: reshaped, they would be other actions.
        """
        key, expected = self._action_key, self._action_shape
        given: np.ndarray = tensordict.get(key).detach().cpu().numpy()
        if given.shape != expected:
            raise ValueError(
                f"{key}: the action for {self._moment()} has the shape {given.shape}, and the "
                f"environment's action spec has {expected}: give each decision as many actions, of "
                "as many numbers, as the spec has"
            )
        if not np.isfinite(given).all():
            raise ValueError(f"{key}: the action for {self._moment()} is not finite")
        return given.reshape(-1, expected[-1])

    def _moment(self) -> str:
        return (
            f"task {self.task.name!r}, episode seed {self._episode_seed}, decision "
            f"{self._decisions}"
        )


def _copied(entries: Mapping[Any, Any]) -> dict[Any, Any]:
    """Entries as tensors that nobody else has."""
    return {
        key: _copied(each) if isinstance(each, Mapping) else torch.as_tensor(each).clone()
        for key, each in entries.items()
    }
