"""What decides a LeRobot policy, as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from tensordict.nn import ProbabilisticTensorDictSequential
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.leftovers import temporary_folder
from rftf_torchrl.nets.state_statistics import where_it_varies
from rftf_torchrl.optional import optional_module
from rftf_torchrl.policies.lerobot import native
from rftf_torchrl.policies.lerobot.actor import batch_names, lerobot_actor
from rftf_torchrl.policies.lerobot.observation import LeRobotObservation
from rftf_torchrl.policies.lerobot.processors import refuse_foreign_steps
from rftf_torchrl.policies.native import NativeComparison
from rftf_torchrl.policies.settings import PolicyConfig, Scale, Sizes
from rftf_torchrl.settings import setting_problems

logger = logging.getLogger(__name__)

# Below this share of its size, a number of the data counts as constant: rounding of float32.
CONSTANT = 1e-6


@dataclass(frozen=True, kw_only=True)
class LeRobotOptions:
    """``policy.options`` of ``policy.kind=lerobot``; see :class:`LeRobotSpec`.

    Attributes:
        config: without ``policy.pretrained``, LeRobot's configuration.
        inputs: name in LeRobot's batch -> key of our observation; None for the usual ones of
            ``policy.pretrained``.
        stats: without ``policy.pretrained``, statistics of the normalisation.
        init_scale: initial standard deviation, in the environment's units.
        learn_scale: whether fine-tuning changes it.
    """

    config: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    stats: dict[str, dict[str, Any]] | None = None
    init_scale: Scale = 0.3
    learn_scale: bool = True


@dataclass(frozen=True)
class LeRobotSpec:
    """Everything that decides a LeRobot policy but its weights.

    :meth:`from_pretrained` reads it from a checkpoint, :meth:`from_config` from a LeRobot config.

    Attributes:
        config: LeRobot's configuration as JSON, with its ``"type"``.
        inputs: name in LeRobot's batch -> key of our observation. SmolVLA and pi0 can do without
            some of their cameras.
        stats: statistics of LeRobot's normalisation: feature -> name (``"mean"``, ``"std"``,
            ``"min"``, ``"max"``, ...) -> nested list; a feature without any is left as it is.
        chunk_size: actions per chunk; None for LeRobot's.
        init_scale: initial standard deviation, in the environment's units.
        learn_scale: whether it is learned.
        source: folder or hub id of the weights, for :meth:`build_pretrained`.

    Example:
        >>> state = {"type": "STATE", "shape": [3]}
        >>> config = {"type": "act", "input_features": {"observation.state": state}}
        >>> spec = LeRobotSpec(config, {"observation.state": ("observation", "state")})
        >>> LeRobotSpec.from_dict(spec.to_dict()) == spec
        True
    """

    kind: ClassVar[str] = "lerobot"
    pretrained_on: ClassVar[str] = "hub"
    Options: ClassVar[type] = LeRobotOptions

    config: dict[str, Any]
    inputs: dict[str, NestedKey]
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)
    chunk_size: int | None = None
    init_scale: float = 0.3
    learn_scale: bool = True
    source: str | None = None

    def __post_init__(self) -> None:
        features = self.config["input_features"]
        cameras = {name for name, feature in features.items() if feature["type"] == "VISUAL"}
        # A flow policy leaves out the cameras that a batch does not have, all but one.
        spared = cameras if "max_action_dim" in self.config else set()
        given = set(self.inputs)
        if not set(features) - spared <= given <= set(features) or (spared and not given & cameras):
            raise ValueError(
                "inputs must name a key for each input of the LeRobot policy, "
                f"{sorted(features)}{' (of the cameras, for one)' if spared else ''}, got "
                f"{sorted(given)}."
            )
        inputs = {
            name: unravel_key(key if isinstance(key, str) else tuple(key))
            for name, key in self.inputs.items()
        }
        object.__setattr__(self, "inputs", inputs)

    @classmethod
    def problems(cls, settings: PolicyConfig, sizes: Sizes) -> list[str]:
        """What is wrong with a run's settings."""
        problems = setting_problems(LeRobotOptions, settings.options, "policy.options.")
        given = {name for name, value in settings.options.items() if value is not None}
        if not settings.pretrained and not {"config", "inputs"} <= given:
            problems.append("policy.pretrained: a policy of LeRobot needs its folder or hub id")
        elif not settings.pretrained and not problems:
            lacking = {"type", "input_features"} - settings.options["config"].keys()
            problems += [f"policy.options.config: {name} is missing" for name in sorted(lacking)]
        if settings.pretrained:
            problems += [
                f"policy.options.{name} has no effect with policy.pretrained, which has its own"
                for name in ("config", "stats")
                if name in settings.options
            ]
        return problems

    @classmethod
    def from_run(cls, settings: PolicyConfig, sizes: Sizes) -> LeRobotSpec:
        """The spec of a run's policy, see :meth:`from_pretrained`."""
        given = {name: value for name, value in settings.options.items() if value is not None}
        entries = {"chunk_size": sizes.chunk_size, **given}
        if settings.pretrained:
            return cls.from_pretrained(settings.pretrained, **entries)
        return cls.from_dict(entries)

    @classmethod
    @nested_keys
    def from_config(
        cls,
        config: Any,
        inputs: Mapping[str, NestedKey],
        *,
        stats: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> LeRobotSpec:
        """Describes a policy by LeRobot's config object.

        Args:
            config: a ``PreTrainedConfig``.
            inputs: name in LeRobot's batch -> key of our observation.
            stats: statistics of the normalisation, tensors, arrays or lists.
            settings: the other attributes.

        Raises:
            ValueError: if an input has no key.
        """
        lists = {
            feature: {name: torch.as_tensor(value).tolist() for name, value in values.items()}
            for feature, values in (stats or {}).items()
        }
        with temporary_folder() as folder:
            config._save_pretrained(Path(folder))
            described = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        return cls(described, dict(inputs), lists, **settings)

    @classmethod
    @nested_keys
    def from_pretrained(
        cls, source: str, inputs: Mapping[str, NestedKey] | None = None, **settings: Any
    ) -> LeRobotSpec:
        """Reads configuration and normalisation of a checkpoint.

        Args:
            source: folder or hub id.
            inputs: name in LeRobot's batch -> key of our observation; None takes the state and
                the image for ``"observation.state"`` and the only camera, or the first of those
                that a flow policy can do without.
            settings: the other attributes.

        Raises:
            ImportError: if ``lerobot`` is missing.
            ValueError: if an input has no key, or a processing step is none of LeRobot's.
        """
        _lerobot("policies.factory")  # registers the policies' configurations
        config = _lerobot("configs.policies").PreTrainedConfig.from_pretrained(source)
        refuse_foreign_steps(source)
        pipeline = _lerobot("processor").PolicyProcessorPipeline.from_pretrained(
            source,
            config_filename="policy_preprocessor.json",
            overrides={"device_processor": {"device": "cpu"}},
        )
        stats: dict[str, dict[str, Any]] = {}
        for step in pipeline.steps:
            if isinstance(step, _lerobot("processor").NormalizerProcessorStep):
                for name, value in step.state_dict().items():
                    feature, statistic = name.rsplit(".", 1)
                    stats.setdefault(feature, {})[statistic] = value
        if inputs is None:
            inputs = _usual_inputs(config)
        return cls.from_config(config, inputs, stats=stats, source=str(source), **settings)

    @property
    def batch_names(self) -> list[str]:
        """Entries of LeRobot's batch that the policy reads."""
        return batch_names(self.lerobot_config(), list(self.inputs))

    @property
    def text_key(self) -> str | None:
        """Key of the instruction's text; None where the policy reads none."""
        return keys.INSTRUCTION_TEXT if "tokenizer_max_length" in self.config else None

    def lerobot_config(self) -> Any:
        """LeRobot's config object, on the CPU and without any weights to load.

        Raises:
            ImportError: if ``lerobot`` is missing.
        """
        _lerobot("policies.factory")
        described = {**self.config, "device": "cpu"}
        for name, value in (("load_vlm_weights", False), ("pretrained_backbone_weights", None)):
            if name in described:
                described[name] = value
        with temporary_folder() as folder:
            Path(folder, "config.json").write_text(json.dumps(described), encoding="utf-8")
            return _lerobot("configs.policies").PreTrainedConfig.from_pretrained(folder)

    def processors(self) -> tuple[Any, Any]:
        """LeRobot's preprocessor and postprocessor with the spec's statistics, on the CPU.

        A number of an observation that was constant in the checkpoint's data (standard deviation 0,
        or least and greatest value equal) is shifted and not stretched, with a warning: LeRobot
        would divide by 1e-8.
        """
        stats = {
            feature: {name: torch.tensor(value) for name, value in values.items()}
            for feature, values in self.stats.items()
        }
        for feature in sorted(stats.keys() - {"action"}):
            stats[feature] |= _not_stretched(feature, stats[feature])
        made: tuple[Any, Any] = _lerobot("policies.factory").make_pre_post_processors(
            self.lerobot_config(), dataset_stats=stats
        )
        return made

    def build(self) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights; see :func:`lerobot_actor`."""
        return self._actor(self._policy_class()(self.lerobot_config()))

    def build_pretrained(self) -> ProbabilisticTensorDictSequential:
        """The policy with the weights of ``source``.

        Raises:
            ValueError: if the spec has no source.
            RuntimeError: if the checkpoint holds other weights; lists them.
        """
        if self.source is None:
            raise ValueError("this spec has no source: make it by LeRobotSpec.from_pretrained.")
        return self.load(self.source)

    def load(self, source: str) -> ProbabilisticTensorDictSequential:
        """The policy with the weights of a folder or hub id, see :meth:`build_pretrained`."""
        config = self.lerobot_config()
        return self._actor(self._policy_class().from_pretrained(source, config=config, strict=True))

    def compare_with_native(
        self, policy: nn.Module, source: str, sentences: Sequence[str], size: int | None
    ) -> NativeComparison:
        """See :func:`compare_with_native`."""
        return native.compare(self, policy, source, sentences, size)

    def export(self, policy: nn.Module, folder: Path, source: str | None = None) -> None:
        """Writes what LeRobot's ``from_pretrained`` reads; see :func:`export_policy`.

        LeRobot executes as many actions of a chunk as fine-tuning did (``chunk_size``). The
        standard deviation, which LeRobot has no place for, is left out.
        """
        native.export(self, policy, folder)

    def observation_transform(self) -> LeRobotObservation:
        """What turns an observation into the policy's inputs."""
        return LeRobotObservation(self.inputs, self.batch_names, self.text_key, self.processors)

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return cast(dict[str, Any], json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> LeRobotSpec:
        """The spec that :meth:`to_dict` described."""
        return cls(**spec)

    def _policy_class(self) -> Any:
        return _lerobot("policies.factory").get_policy_class(self.config["type"])

    def _actor(self, policy: Any) -> ProbabilisticTensorDictSequential:
        return lerobot_actor(
            policy,
            inputs=list(self.inputs),
            chunk_size=self.chunk_size,
            unnormalise=_Unnormalise(self.processors()[1]),
            init_scale=self.init_scale,
            learn_scale=self.learn_scale,
        )


# Standard deviation or range of a feature, as a pair of statistics; LeRobot divides by them.
_RANGES = (("min", "max"), ("q01", "q99"), ("q10", "q90"))


def _not_stretched(feature: str, stats: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Statistics to put in the place of those of constant numbers."""
    found = {}
    constant: set[int] = set()
    if "std" in stats:
        std, mean = stats["std"].double(), stats.get("mean", torch.zeros(()))
        least = CONSTANT * mean.double().abs().clamp_min(1)
        found["std"] = where_it_varies(std, least).to(stats["std"].dtype)
        constant |= set((std < least).flatten().nonzero().flatten().tolist())
    for low, high in _RANGES:
        if low in stats and high in stats:
            size = (stats[high] - stats[low]).double()
            least = CONSTANT * stats[low].double().abs().clamp_min(1)
            fixed = size < least
            found[high] = torch.where(fixed, stats[low] + 2, stats[high])  # from -1 with slope 1
            constant |= set(fixed.flatten().nonzero().flatten().tolist())
    if constant:
        logger.warning(
            "%s is constant at index %s in the data of this LeRobot checkpoint: these numbers are "
            "shifted and not stretched, where LeRobot would divide by 1e-8",
            feature,
            ", ".join(map(str, sorted(constant))),
        )
    return found


class _Unnormalise:
    """LeRobot's postprocessor without its move to the CPU."""

    def __init__(self, pipeline: Any) -> None:
        device_step = _lerobot("processor").DeviceProcessorStep
        self.steps = [step for step in pipeline.steps if not isinstance(step, device_step)]

    def __call__(self, chunk: Tensor) -> Tensor:
        converters = _lerobot("processor.converters")
        transition = converters.policy_action_to_transition(chunk)
        for step in self.steps:
            transition = step(transition)
        return cast(Tensor, converters.transition_to_policy_action(transition))


def _usual_inputs(config: Any) -> dict[str, NestedKey]:
    found: dict[str, NestedKey] = dict.fromkeys(list(config.image_features)[:1], keys.IMAGE)
    if "observation.state" in config.input_features:
        found["observation.state"] = keys.STATE
    return found


def _lerobot(name: str) -> Any:
    return optional_module(f"lerobot.{name}", "lerobot")
