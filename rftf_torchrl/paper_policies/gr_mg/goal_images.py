"""Goal images: what the scene shall look like, as GR-MG wants to be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Composite, TensorSpec, Unbounded
from torchrl.envs.transforms import Transform

from rftf_torchrl import keys
from rftf_torchrl.nets.autoreset import reset_where_asked
from rftf_torchrl.nets.entries import state_and_observation
from rftf_torchrl.paper_policies.blocks.inputs import GOAL_IMAGE

GoalImageProvider = Callable[[TensorDictBase, int], Tensor]
PROGRESS = "progress"
AGE = ("vla_inputs", "goal_age")


def current_frame(observation: TensorDictBase, percent: int) -> Tensor:
    """Replaces a generator of goal images: the static camera's present image.

    Args:
        observation: one observation, batch [].
        percent: share of the instruction carried out; not used.

    Returns:
        uint8 [3, H, W].
    """
    picture: Tensor = observation[keys.IMAGE]
    return picture


@dataclass(frozen=True, eq=False)
class LastFrames:
    """Replaces a generator of goal images: the last frame of a demonstration of the task.

    Attributes:
        pictures: by ``"task_id"``, the last image of a successful demonstration, uint8
            [3, H, W], of the same size as the environment's.

    Example:
        >>> from tensordict import TensorDict
        >>> goals = LastFrames({7: torch.ones(3, 2, 2, dtype=torch.uint8)})
        >>> goals(TensorDict({"task_id": torch.tensor([7])}), 0).sum()
        tensor(12)
    """

    pictures: Mapping[int, Tensor]

    def __call__(self, observation: TensorDictBase, percent: int) -> Tensor:
        """The image of the observation's task.

        Raises:
            KeyError: if there is none.
        """
        task = int(observation[keys.TASK_ID])
        if task not in self.pictures:
            raise KeyError(
                f"no goal image for task {task}, there are some for {sorted(self.pictures)}: add a "
                "demonstration of it."
            )
        return self.pictures[task]


class GoalImages(Transform):
    """Writes a goal image at each reset and renews it every few decisions.

    The provider gets the observation and how much of the instruction the policy thought it had
    carried out when it last acted, in steps of ten percent. Goal image, its age and that progress
    are in the data: the transform stores nothing.

    Source: Li et al. 2024, "GR-MG", arXiv 2408.14368; ``evaluate/eval.py`` of its code. There, a
    diffusion model (InstructPix2Pix) paints the goal image; it is not part of this package.

    Args:
        provider: ``provider(observation, percent)`` -> uint8 [3, H, W], of the static image's
            size. Worker processes need one that can be pickled.
        every: decisions between two goal images.

    Raises:
        ValueError: if ``every`` is below 1; on use, if a goal image has another shape or dtype.
    """

    def __init__(self, provider: GoalImageProvider = current_frame, every: int = 20) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 decision, got {every}.")
        super().__init__(in_keys=[keys.IMAGE], out_keys=[GOAL_IMAGE, AGE, PROGRESS])
        self.provider = provider
        self.every = every

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        batch = tensordict_reset.batch_size
        image = tensordict_reset[keys.IMAGE]
        age = torch.zeros(*batch, 1, dtype=torch.int64, device=image.device)
        progress = torch.zeros(*batch, 1, device=image.device)
        goal = torch.zeros_like(image)
        return self._renew(tensordict_reset, goal, age, progress)

    def _reset_on_native_autoreset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return reset_where_asked(self, tensordict, tensordict_reset)

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        age = (tensordict[AGE] + 1) % self.every
        return self._renew(next_tensordict, tensordict[GOAL_IMAGE], age, tensordict[PROGRESS])

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Leaves data that hold goal images as they are.

        Raises:
            KeyError: if they hold none.
        """
        if tensordict.get(GOAL_IMAGE, None) is None:
            raise KeyError(
                f"the data hold no goal image at {GOAL_IMAGE!r}: collect through the environment's "
                "transform, or prepare recordings with the spec's demonstration_batch()."
            )
        return tensordict

    def _renew(
        self, observed: TensorDictBase, goal: Tensor, age: Tensor, progress: Tensor
    ) -> TensorDictBase:
        """Sets the three entries; asks the provider where the age is zero."""
        flat = observed.reshape(-1)
        goals = goal.reshape(len(flat), *goal.shape[-3:]).clone()
        for row in (age.reshape(-1) == 0).nonzero().flatten().tolist():
            percent = 10 * int(10 * progress.reshape(-1)[row])
            found = self.provider(flat[row], percent)
            if found.shape != goals.shape[1:] or found.dtype != torch.uint8:
                raise ValueError(
                    f"the goal image provider returned {found.dtype} {tuple(found.shape)}, "
                    f"expected torch.uint8 {tuple(goals.shape[1:])}, the static image's shape."
                )
            goals[row] = found
        observed.set(GOAL_IMAGE, goals.reshape(goal.shape))
        return observed.set(AGE, age).set(PROGRESS, progress)

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Adds goal image, age and progress."""
        return self._add(observation_spec, observation_spec[keys.IMAGE])

    def transform_input_spec(self, input_spec: Composite) -> Composite:
        """Declares them as state, so that every kind of environment passes them on."""
        state, observed = state_and_observation(self, input_spec)
        input_spec["full_state_spec"] = self._add(state, observed[keys.IMAGE])
        return input_spec

    @staticmethod
    def _add(spec: Composite, image: TensorSpec) -> Composite:
        one = (*spec.shape, 1)
        spec[GOAL_IMAGE] = Bounded(0, 255, shape=image.shape, dtype=torch.uint8, device=spec.device)
        spec[AGE] = Unbounded(shape=one, dtype=torch.int64, device=spec.device)
        spec[PROGRESS] = Unbounded(shape=one, device=spec.device)
        return spec
