"""Kinds of value models of a user's own, good and bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import HashTokenizer, TemporalValueModel, keys

STATE = ("observation", "state")


@dataclass
class Linear:
    """A layer on the state."""

    bias: bool = True

    def build(self, sizes):
        return TemporalValueModel(nn.Linear(sizes.state_dim, 1, self.bias), in_keys=[STATE])


@dataclass
class Sum:
    """The sum of the state, used as it is."""

    trained: ClassVar[bool] = False

    def build(self, sizes):
        return TensorDictModule(lambda x: x.sum(-1, True), [STATE], ["temporal_value"])


@dataclass
class Wide(Sum):
    def build(self, sizes):
        return TensorDictModule(lambda x: x[..., :2], [STATE], ["temporal_value"])


@dataclass
class Elsewhere(Sum):
    def build(self, sizes):
        return TensorDictModule(lambda x: x[..., :1], [STATE], ["progress"])


@dataclass
class Blind(Sum):
    def build(self, sizes):
        return TensorDictModule(lambda x: x[..., :1], ["depth"], ["temporal_value"])


def brightness(image, tokens):
    """The mean of red as a share of 240, under "open ..."; under other words 1 minus that."""
    bright = image[:, 0].float().mean((1, 2)) / 240
    opens = tokens[:, 0] == HashTokenizer()("open")[0][0, 0]
    return bright.where(opens, 1 - bright)[:, None]


@dataclass
class Brightness(Sum):
    """Reads images and words, used as it is."""

    def build(self, sizes):
        return TensorDictModule(brightness, [keys.IMAGE, keys.TOKENS], ["temporal_value"])


@dataclass
class NotTrainable:
    def build(self, sizes):
        return TensorDictModule(nn.Linear(sizes.state_dim, 1), [STATE], ["temporal_value"])


@dataclass
class NoBuild:
    width: int = 1


class NoDataclass:
    def build(self, sizes):
        return None


class HandHeight(nn.Module):
    """A scoring model of batches."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def compute_reward(self, batch):
        return self.scale * batch["hand"][:, 2]


def hand_height(scale=1.0):
    return HandHeight(scale)
