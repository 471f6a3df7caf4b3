"""The library's kinds of value models, and how one is built and tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import Field
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from rftf_torchrl import keys
from rftf_torchrl.nets.evaluate_states import eval_mode
from rftf_torchrl.nets.fusion import EncoderConfig
from rftf_torchrl.nets.sizes import ObservationSizes
from rftf_torchrl.registry import Registry
from rftf_torchrl.settings import Count, Text, one_of
from rftf_torchrl.values.kinds import value_spec
from rftf_torchrl.values.pretrained.config import PretrainedEncoderConfig
from rftf_torchrl.values.score_module import score_module
from rftf_torchrl.values.temporal_value import TemporalValueModel, temporal_value_model

_SCORES = Registry("scoring model", "rftf_torchrl.scoring_models", {}, ("__call__",))


@dataclass(frozen=True)
class SmallValue:
    """A small encoder of the image, or of the state where there is no image.

    Attributes:
        channels: output channels of the image encoder's convolutions.
    """

    channels: Annotated[tuple[Count, ...], Field(min_length=3, max_length=3)] = (16, 32, 32)

    def build(self, sizes: ObservationSizes) -> TemporalValueModel:
        """The untrained model."""
        state_dim = sizes.state_dim if sizes.image_size is None else None
        config = EncoderConfig(
            image_size=sizes.image_size,
            state_dim=state_dim,
            channels=cast(tuple[int, int, int], self.channels),
        )
        return temporal_value_model(config)


@dataclass(frozen=True)
class PretrainedValue:
    """A pretrained image tower and a small encoder of the words.

    Attributes:
        image_tower: folder or hub id of the tower (SigLIP, CLIP, DINOv2, ViT-MAE).
        tower_training: ``"frozen"``, ``"lora"`` or ``"full"``; a frozen tower runs once per frame,
            and images are not shifted.
        fusion: how the language meets the tower's patches: ``"cross_attention"``,
            ``"concatenation"`` or ``"film"``.
        grid: edge of the grid to which the tower's patches are averaged; None keeps all.
    """

    pretrained_option: ClassVar[str] = "image_tower"

    image_tower: Text
    tower_training: Annotated[str, one_of("frozen", "lora", "full")] = "frozen"
    fusion: Annotated[str, one_of("cross_attention", "concatenation", "film")] = "cross_attention"
    grid: Count | None = 4

    def build(self, sizes: ObservationSizes) -> TemporalValueModel:
        """The model with the tower's weights, else untrained."""
        config = PretrainedEncoderConfig.from_pretrained(
            self.image_tower,
            image_training=self.tower_training,
            fusion=self.fusion,
            grid=self.grid,
        )
        return temporal_value_model(config)


@dataclass(frozen=True)
class ScoreValue:
    """A model of your own that scores batches, used as it is, see :func:`score_module`.

    Attributes:
        model: ``"module:Name"`` of a class or function that gives the model.
        inputs: what the model calls its inputs, and their keys here, e.g.
            ``{"observation.images.top": ["observation", "image"]}``.
        arguments: of the class or function.
        method: name of the model's method that scores.
    """

    trained: ClassVar[bool] = False

    model: Text
    inputs: Annotated[dict[str, str | tuple[str, ...]], Field(min_length=1)]
    arguments: dict[str, Any] = field(default_factory=dict)
    method: Text = "compute_reward"

    def problems(self) -> list[str]:
        """A model that can't be imported."""
        try:
            _SCORES.find(self.model)
        except ValueError as error:
            return [f"value.options.model={self.model}: {error}"]
        return []

    def build(self, sizes: ObservationSizes) -> TensorDictModuleBase:
        """The model as a value model."""
        model = _SCORES.find(self.model)(**self.arguments)
        return score_module(model, self.inputs, method=self.method)


def build_value_model(
    kind: str, options: Mapping[str, Any], sizes: ObservationSizes
) -> TensorDictModuleBase:
    """Build a value model before training.

    Args:
        kind: see :func:`value_spec_class`.
        options: of the kind.
        sizes: of the observations.

    Returns:
        The model. A :class:`TemporalValueModel` knows how it was built, so that its file can be
        loaded.

    Raises:
        ValueError: for a kind or an option that there is not, or a kind that is trained and builds
            something else than a :class:`TemporalValueModel`.

    Example:
        >>> build_value_model("small", {}, ObservationSizes(state_dim=7)).out_keys
        ['temporal_value']
    """
    spec = value_spec(kind, options)
    model: TensorDictModuleBase = spec.build(sizes)
    if isinstance(model, TemporalValueModel):
        model.built_from = {"kind": kind, "options": dict(options), "sizes": asdict(sizes)}
    elif getattr(spec, "trained", True):
        raise ValueError(
            f"value.kind={kind} must build a TemporalValueModel, which is trained and saved, got "
            f"{type(model).__name__}: wrap its network in one, or set trained = False in the class "
            "to use the model as it is."
        )
    return model


def check_value_model(kind: str, model: TensorDictModuleBase, frames: TensorDictBase) -> None:
    """Try a value model on a batch of frames, before anything is trained.

    Args:
        kind: for the error.
        model: the model, which writes ``"temporal_value"`` or, as TorchRL's ``ValueOperator``,
            ``"state_value"``.
        frames: some frames [N], on the model's device.

    Raises:
        ValueError: where it does not write one value a frame.
        KeyError: where it reads what the frames do not hold.

    Example:
        >>> from tensordict import TensorDict
        >>> model = TemporalValueModel(torch.nn.Linear(3, 1), in_keys=["state"])
        >>> check_value_model("mine", model, TensorDict({"state": torch.zeros(2, 3)}, [2]))
    """
    missing = [key for key in model.in_keys if frames.get(key, None) is None]
    if missing:
        raise KeyError(
            f"value.kind={kind} reads {', '.join(map(repr, missing))}, which the demonstrations do "
            f"not hold; they hold {', '.join(map(repr, sorted(frames.keys(True, True), key=str)))}."
        )
    with torch.no_grad(), eval_mode(model):
        found = model(frames.select(*model.in_keys))
    value = found.get(keys.TEMPORAL_VALUE, found.get(keys.STATE_VALUE, None))
    expected = (*frames.batch_size, 1)
    if value is None or value.shape != expected:
        got = "nothing" if value is None else f"shape {tuple(value.shape)}"
        raise ValueError(
            f"value.kind={kind} must write {keys.TEMPORAL_VALUE!r} or {keys.STATE_VALUE!r} of "
            f"shape {expected}, one value a frame, but wrote {got}."
        )
