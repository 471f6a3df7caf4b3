"""Ways to train a value model that were measured and are no part of the library.

``study_values.py`` tries them as a kind: ``value.kind=rftf_torchrl.recipes.value_terms:Tried``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from tensordict import TensorDictBase
from torch import Tensor

from rftf_torchrl import Demonstrations, SmallValue, keys
from rftf_torchrl.data.format import Episode
from rftf_torchrl.settings import Count


@dataclass(frozen=True)
class Tried(SmallValue):
    """A small value model, from the state alone.

    Attributes:
        members: models from different initial weights, of which the smallest value counts.
        context: last states that a model sees.
        rewound: train on clips too in which time turns round at random: a frame comes either from
            before, or, played backwards, from after.
    """

    members: Count = 1
    context: Annotated[int, Field(ge=1, strict=True)] = 1
    rewound: bool = False


def last_states(states: Tensor, count: int) -> Tensor:
    """Each state with those before it, newest first, [T, D] to [T, count * D].

    Before the first one, the first one is repeated.
    """
    when = torch.arange(len(states))[:, None] - torch.arange(count)
    return states[when.clamp_min(0)].flatten(1)


def with_context(tried: Tried, demonstrations: Demonstrations, seed: int) -> Demonstrations:
    """Demonstrations whose states hold the last ones, and rewound copies of them."""
    generator = torch.Generator().manual_seed(seed)
    episodes: list[Episode] = []
    parts, stop = [], 0
    for episode in demonstrations.episodes:
        frames = demonstrations.frames[episode.start : episode.stop]
        before = last_states(frames[keys.STATE], tried.context)
        after = last_states(frames[keys.STATE].flip(0), tried.context).flip(0)
        turned = (torch.rand(len(frames), 1, generator=generator) < 0.5).expand_as(before)
        for states in [before, *([torch.where(turned, after, before)] if tried.rewound else [])]:
            start, stop = stop, stop + len(frames)
            episodes.append(replace(episode, index=len(episodes), start=start, stop=stop))
            parts.append(frames.select("instruction", keys.TASK_ID).clone())
            parts[-1][keys.STATE] = states
    return replace(demonstrations, episodes=tuple(episodes), frames=torch.cat(parts))


def rollout_with_context(tried: Tried, rollout: TensorDictBase) -> TensorDictBase:
    """A rollout [T] whose states, and next states, hold the last ones."""
    states = torch.cat([rollout[keys.STATE], rollout["next"][keys.STATE][-1:]])
    states = last_states(states, tried.context)
    rollout = rollout.copy()
    rollout[keys.STATE], rollout["next"][keys.STATE] = states[:-1], states[1:]
    return rollout
