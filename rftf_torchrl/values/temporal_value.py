"""The value model: a score of an observation under an instruction that rises towards success."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.evaluate_states import eval_mode
from rftf_torchrl.nets.finite_weights import check_finite_weights
from rftf_torchrl.nets.fusion import EncoderConfig, HeadNetwork, VisionLanguageEncoder
from rftf_torchrl.nets.sizes import ObservationSizes
from rftf_torchrl.nets.weights_fit import check_weights_fit
from rftf_torchrl.values.calibration import CalibrationMode, ValueCalibration
from rftf_torchrl.values.kinds import value_spec
from rftf_torchrl.values.pretrained.config import PretrainedEncoderConfig
from rftf_torchrl.values.pretrained.network import PretrainedNetwork
from rftf_torchrl.weights_file import made_by_entry, read_safetensors, write_safetensors

_FORMAT = "rftf_torchrl.TemporalValueModel.1"
_ACTION_ROOTS = ("action", "vla_action")


class TemporalValueModel(TensorDictModuleBase):
    r"""Scores observations: later frames of a successful episode score higher.

    .. math::
        V(s, l) = (\mathrm{network}(s, l) - \mathrm{offset}_l) / \mathrm{scale}_l

    It is trained by :class:`rftf_torchrl.TemporalRankingLoss` on frames and
    instructions alone, and calibrated by :meth:`calibrate`. While the policy is fine-tuned it is
    frozen, or goes on learning. It refuses to read an action.

    Source: Shu, Lin, Wang 2025, "RFTF", arXiv 2505.19767; the calibration is ours.

    Args:
        network: ``network(*inputs)`` -> raw scores, float [*B, 1].
        in_keys: keys of its inputs.
        tokens_key: key of the instruction's tokens, int64 [*B, L]; read only when the calibration
            is per instruction.
        out_key: where the value goes, float32 [*B, 1].
        config: sizes of the network where it was built by :func:`temporal_value_model`, so that
            :meth:`load` can build it again.

    Raises:
        ValueError: if an input is an action.

    Examples:
        >>> from tensordict import TensorDict
        >>> model = TemporalValueModel(nn.Linear(3, 1), in_keys=["state"])
        >>> model(TensorDict({"state": torch.zeros(5, 3)}, [5]))["temporal_value"].shape
        torch.Size([5, 1])
    """

    @nested_keys
    def __init__(
        self,
        network: nn.Module,
        *,
        in_keys: Sequence[NestedKey],
        tokens_key: NestedKey = keys.TOKENS,
        out_key: NestedKey = keys.TEMPORAL_VALUE,
        config: EncoderConfig | PretrainedEncoderConfig | None = None,
    ) -> None:
        super().__init__()
        self.network_keys = [unravel_key(key) for key in in_keys]
        for key in self.network_keys:
            if (key if isinstance(key, str) else key[0]) in _ACTION_ROOTS:
                raise ValueError(
                    f"a value model must not read an action, got in_key {key!r}: it learns from "
                    "frames and instructions alone."
                )
        self.out_keys = [out_key]
        self.tokens_key = tokens_key
        self.network = network
        self.calibration = ValueCalibration()
        self.config = config
        self.built_from: dict[str, Any] | None = None
        self.made_by: dict[str, Any] = {}

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys of the network's inputs, and the tokens where the calibration reads them."""
        tokens = [self.tokens_key] if self.calibration.per_instruction else []
        return list(dict.fromkeys([*self.network_keys, *tokens]))

    @property
    def image_size(self) -> int | None:
        """Edge of the images that the model was trained on, None where that is not known."""
        group = "data" if self.made_by.get("data.path") else "env"
        size: int | None = self.made_by.get(f"{group}.image_size")
        return getattr(self.config, "image_size", None) if size is None else size

    @property
    def max_words(self) -> int | None:
        """Longest instruction that the model was trained on, None where that is not known."""
        if self.calibration.per_instruction:
            return self.calibration.tokens.shape[-1]
        words: int | None = self.made_by.get("data.max_words")
        return words if self.made_by.get("data.path") else None

    def raw(self, tensordict: TensorDictBase) -> Tensor:
        """Returns uncalibrated scores, float32 [*B, 1]; this is what the ranking loss trains.

        Raises:
            KeyError: if an input is missing.
            ValueError: if the network's scores have another shape.
        """
        inputs = []
        for key in self.network_keys:
            value = tensordict.get(key, None)
            if value is None:
                raise KeyError(
                    f"the value model needs {key!r}, which the data do not hold: add it, or build "
                    "the model with other in_keys."
                )
            inputs.append(value)
        scores: Tensor = self.network(*inputs).float()
        if scores.shape != (*tensordict.batch_size, 1):
            raise ValueError(
                f"the network must return one score each, shape "
                f"{(*tensordict.batch_size, 1)}, got {tuple(scores.shape)}."
            )
        return scores

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes the calibrated value, float32 [*B, 1], and returns the tensordict."""
        tokens = tensordict.get(self.tokens_key, None) if self.calibration.per_instruction else None
        tensordict.set(self.out_keys[0], self.calibration(self.raw(tensordict), tokens))
        return tensordict

    @torch.no_grad()
    @nested_keys
    def calibrate(
        self,
        first: TensorDictBase,
        last: TensorDictBase,
        mode: CalibrationMode = "instruction",
        *,
        text_key: NestedKey = keys.INSTRUCTION_TEXT,
        minibatch: int = 256,
    ) -> None:
        """Sets the calibration from demonstrations; see :meth:`ValueCalibration.fit`.

        Args:
            first: first frame of each demonstration, batch [N].
            last: last frame of each demonstration, batch [M].
            mode: ``"instruction"``, ``"global"`` or ``"standardise"``.
            text_key: where `first` may hold the instruction's text, for error messages.
            minibatch: frames per forward pass.

        Raises:
            ValueError: if last frames do not score above first ones; names the instruction.
        """
        device = self.calibration.offset.device
        scores, tokens = [], []
        with eval_mode(self):
            for frames in (first, last):
                inputs = frames.select(*self.network_keys, strict=False)
                pieces = [
                    self.raw(piece.to(device)).flatten().cpu() for piece in inputs.split(minibatch)
                ]
                scores.append(torch.cat(pieces))
                token = frames.get(self.tokens_key, None)
                tokens.append(None if token is None else token.cpu())
        texts = first.get(text_key, None)
        names = None if texts is None else texts.tolist()
        self.calibration.fit(*scores, *tokens, mode=mode, names=names)

    def save(
        self, path: str | os.PathLike[str], *, made_by: Mapping[str, Any] | None = None
    ) -> None:
        """Writes weights, calibration, keys and config to one safetensors file, atomically.

        Args:
            path: the file.
            made_by: settings that made it, kept in the file; see :func:`read_made_by`.

        Raises:
            FloatingPointError: when a weight is NaN or infinite.
        """
        check_finite_weights(self.state_dict().items(), "the value model")
        header = {
            "in_keys": self.network_keys,
            "tokens_key": self.tokens_key,
            "out_key": self.out_keys[0],
            "config": None if self.config is None else self.config.to_dict(),
            "kind": "pretrained" if isinstance(self.config, PretrainedEncoderConfig) else "small",
        }
        if self.config is None and self.built_from is not None:
            header |= self.built_from
        metadata = {"format": _FORMAT, "model": json.dumps(header), **made_by_entry(made_by)}
        write_safetensors(path, self.state_dict(), metadata)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        network: nn.Module | None = None,
        *,
        kind: str | None = None,
    ) -> TemporalValueModel:
        """Reads a model that :meth:`save` wrote.

        Args:
            path: the file.
            network: the network to fill; None builds it from the file: from the config there, or
                by the kind of value model that built it, see :func:`build_value_model`.
            kind: needed where that kind is none of the library's: that same string. A file alone
                does not make Python import what it names.

        Returns:
            The model, on the CPU.

        Raises:
            ValueError: if the file is not a value model, or one of another version; holds no
                config while no network is given, or another architecture than the network.
        """
        tensors, metadata = read_safetensors(path)
        if metadata.get("format") != _FORMAT:
            raise ValueError(
                f"{path} is not a value model: expected format {_FORMAT!r}, got "
                f"{metadata.get('format')!r}."
            )
        header = json.loads(metadata["model"])
        try:
            config = _config(header)
            if network is None:
                network = _built(header, config, path, kind)
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"{path} describes its network in a way that this version does not know "
                f"({error}): was it made by another one?"
            ) from error
        model = cls(
            network,
            in_keys=[_key(key) for key in header["in_keys"]],
            tokens_key=_key(header["tokens_key"]),
            out_key=_key(header["out_key"]),
            config=config,
        )
        if "options" in header:
            model.built_from = {name: header[name] for name in ("kind", "options", "sizes")}
        table = model.calibration.state_dict(prefix="calibration.")  # of any number of instructions
        own = {**model.state_dict(), **{name: tensors.get(name, table[name]) for name in table}}
        check_weights_fit(
            {name: value.shape for name, value in own.items()},
            tensors,
            path,
            whose="the value model",
            advice="Pass the network that was saved, or none to build it from the file.",
        )
        model.load_state_dict(tensors)
        model.made_by = json.loads(metadata.get("made_by", "{}"))
        return model


@nested_keys
def temporal_value_model(
    config: EncoderConfig | PretrainedEncoderConfig,
    *,
    in_keys: Sequence[NestedKey] | None = None,
    out_key: NestedKey = keys.TEMPORAL_VALUE,
) -> TemporalValueModel:
    """Builds a value model on a small encoder, or on pretrained towers.

    Args:
        config: sizes of the encoder; of a :class:`PretrainedEncoderConfig` the towers' weights are
            loaded from its sources.
        in_keys: keys of the inputs that the config names, in its order; default
            ``config.in_keys``.
        out_key: where the value goes, float32 [*B, 1].

    Returns:
        The untrained model.

    Examples:
        >>> temporal_value_model(EncoderConfig(image_size=None, state_dim=7)).out_keys
        ['temporal_value']
    """
    inputs = list(config.in_keys if in_keys is None else in_keys)
    tokens_key = inputs[config.inputs.index("tokens")]
    return TemporalValueModel(
        _network(config), in_keys=inputs, tokens_key=tokens_key, out_key=out_key, config=config
    )


def _network(config: EncoderConfig | PretrainedEncoderConfig, *, weights: bool = True) -> nn.Module:
    if isinstance(config, PretrainedEncoderConfig):
        return PretrainedNetwork(config, weights=weights)
    return HeadNetwork(VisionLanguageEncoder(config), (1,))


def _built(
    header: dict[str, Any],
    config: EncoderConfig | PretrainedEncoderConfig | None,
    path: str | os.PathLike[str],
    kind: str | None,
) -> nn.Module:
    """The network that a file describes, with fresh weights."""
    if config is not None:
        return _network(config, weights=False)
    if "options" not in header:
        raise ValueError(f"{path} holds no config: pass the network it was saved from.")
    if header["kind"] != kind:
        raise ValueError(
            f"{path} names the kind {header['kind']!r}, whose code would be imported: if you trust "
            f"it, name it too, by kind={header['kind']!r} (in the recipes value.kind="
            f"{header['kind']})"
        )
    spec = value_spec(header["kind"], header["options"])
    network: nn.Module = spec.build(ObservationSizes(**header["sizes"])).network
    return network


def _config(header: dict[str, Any]) -> EncoderConfig | PretrainedEncoderConfig | None:
    if header["config"] is None:
        return None
    pretrained = header.get("kind") == "pretrained"
    return (PretrainedEncoderConfig if pretrained else EncoderConfig).from_dict(header["config"])


def _key(key: str | list[str]) -> NestedKey:
    return key if isinstance(key, str) else tuple(key)
