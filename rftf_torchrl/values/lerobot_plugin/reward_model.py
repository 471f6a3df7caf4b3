"""The value model as a reward model of LeRobot 0.6, of the type ``rftf``.

Importing this module imports LeRobot and registers the type. LeRobot finds the model and the
processors here by their names. Annotations are real types, as LeRobot's configurations need them.
"""

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import interpolate

from rftf_torchrl import keys
from rftf_torchrl.nets.evaluate_states import eval_mode, policy_device
from rftf_torchrl.optional import lerobot_rewards_module, optional_module
from rftf_torchrl.transforms.instruction_tokens import HashTokenizer
from rftf_torchrl.values.temporal_value import TemporalValueModel

_WEIGHTS = "model.safetensors"
_READABLE = (keys.IMAGE, keys.STATE, keys.TOKENS, keys.TOKEN_MASK)
_configs = lerobot_rewards_module("lerobot.configs.rewards")
_pretrained = lerobot_rewards_module("lerobot.rewards.pretrained")


@_configs.RewardModelConfig.register_subclass("rftf")
@dataclass
class RFTFConfig(_configs.RewardModelConfig):  # type: ignore[name-defined]
    """Where the value model is, and what it reads of LeRobot's batch.

    Attributes:
        value_path: the file of :meth:`TemporalValueModel.save`; not saved, a saved reward model
            has it beside the configuration.
        image_size: edge to which images are resized; None takes the value model's.
        image_key: the image in the batch, float [B, 3, h, w] in 0..1, or uint8.
        state_key: the state, float [B, D].
        task_key: the instructions, B strings or one for all.
    """

    value_path: str | None = None
    image_size: int | None = None
    image_key: str = "observation.images.top"
    state_key: str = "observation.state"
    task_key: str = "task"


class RFTFRewardModel(_pretrained.PreTrainedRewardModel):  # type: ignore[name-defined]
    """Rewards a frame with its value: about 0 where demonstrations begin, 1 where they end.

    It is not trained by LeRobot: train it by ``rftf train-value``. Each frame is scored by itself,
    so that there is nothing to reset.

    Args:
        config: says where the value model is.
        value_kind: the kind of a value model of your own, see :meth:`TemporalValueModel.load`.
        dataset_stats: LeRobot's, not used.
        dataset_meta: LeRobot's, not used.

    Raises:
        ValueError: if the config names no file, or the value model reads what a batch of LeRobot
            does not hold.
    """

    name = "rftf"
    config_class = RFTFConfig

    def __init__(
        self,
        config: RFTFConfig,
        *,
        value_kind: str | None = None,
        dataset_stats: Any = None,
        dataset_meta: Any = None,
    ) -> None:
        super().__init__(config)
        if config.value_path is None:
            raise ValueError(
                "the config of this reward model names no value model: RFTFConfig(value_path=...) "
                "takes the file of rftf train-value, from_pretrained a folder."
            )
        self.value = TemporalValueModel.load(config.value_path, kind=value_kind)
        other = [key for key in self.value.in_keys if key not in _READABLE]
        if other:
            raise ValueError(
                f"the value model reads {', '.join(map(repr, other))}; from LeRobot's batch it can "
                f"have {', '.join(map(repr, _READABLE))}."
            )
        self.value.requires_grad_(False).eval()

    @torch.no_grad()
    def compute_reward(self, batch: dict[str, Any]) -> Tensor:
        """Returns the value of each frame, float32 [B].

        Args:
            batch: as LeRobot's data loader or preprocessor gives it.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if images are of another shape or range, or there are not B instructions.
        """
        data = self._observations(batch).to(policy_device(self.value))
        with eval_mode(self.value):
            values: Tensor = self.value(data)[self.value.out_keys[0]]
        return values.squeeze(-1)

    def _save_pretrained(self, save_directory: Path) -> None:
        replace(self.config, value_path=None)._save_pretrained(save_directory)
        self.value.save(Path(save_directory, _WEIGHTS), made_by=self.value.made_by)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | PathLike[str],
        *,
        config: RFTFConfig | None = None,
        strict: bool = True,
        value_kind: str | None = None,
        dataset_stats: Any = None,
        dataset_meta: Any = None,
        **download: Any,
    ) -> "RFTFRewardModel":
        """Reads a folder that ``save_pretrained`` wrote, or a repository of the hub.

        Args:
            pretrained_name_or_path: folder or hub id.
            config: in place of the one there.
            strict: LeRobot's, not used: weights always have to fit.
            value_kind: the kind of a value model of your own.
            dataset_stats: LeRobot's, not used.
            dataset_meta: LeRobot's, not used.
            **download: of ``huggingface_hub.hf_hub_download``, such as ``revision``.
        """
        place = str(pretrained_name_or_path)
        if config is None:
            config = _configs.RewardModelConfig.from_pretrained(place, **download)
        if Path(place).is_dir():
            file = str(Path(place, _WEIGHTS))
        else:
            hub = optional_module("huggingface_hub", "lerobot")
            file = hub.hf_hub_download(place, _WEIGHTS, **download)
        model = cls(replace(config, value_path=file), value_kind=value_kind)
        model.to(model.config.device)
        return model

    def _observations(self, batch: dict[str, Any]) -> TensorDict:
        """What the value model reads, in our keys, dtypes and sizes."""
        found: dict[Any, Tensor] = {}
        wanted = set(self.value.in_keys)
        if keys.IMAGE in wanted:
            found[keys.IMAGE] = self._picture(_entry(batch, self.config.image_key, "image_key"))
        if keys.STATE in wanted:
            found[keys.STATE] = _entry(batch, self.config.state_key, "state_key").float()
        count = len(next(iter(found.values())))
        table = self.value.calibration.tokens
        if len(table) or {keys.TOKENS, keys.TOKEN_MASK} & wanted:
            task = _entry(batch, self.config.task_key, "task_key")
            tasks = [task] * count if isinstance(task, str) else list(task)
            if len(tasks) != count:
                raise ValueError(
                    f"the batch has {len(tasks)} instructions in {self.config.task_key!r} for "
                    f"{count} frames: give one each, or one string for all."
                )
            words = self.value.max_words
            tokenizer = HashTokenizer() if words is None else HashTokenizer(max_length=words)
            found[keys.TOKENS], found[keys.TOKEN_MASK] = tokenizer(tasks)
        return TensorDict(found, [count])

    def _picture(self, image: Tensor) -> Tensor:
        name, image = self.config.image_key, image.cpu()  # resizing bytes is the CPU's alone
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(
                f"{name!r} has shape {tuple(image.shape)}; expected one colour image a frame, "
                "[B, 3, h, w]."
            )
        if image.is_floating_point():
            low, high = image.aminmax()
            if not (low >= 0 and high <= 1):
                raise ValueError(
                    f"{name!r} has numbers from {float(low):.3g} to {float(high):.3g}; expected "
                    "0..1, as LeRobot's data sets have them: do not normalise it."
                )
            image = (image * 255).round().to(torch.uint8)
        size = self.config.image_size or self.value.image_size
        if size is None and self.value.built_from is not None:
            size = self.value.built_from["sizes"]["image_size"]
        if size is None or image.shape[-2:] == (size, size):
            return image
        return interpolate(image, (size, size), mode="bilinear", antialias=True)


def make_rftf_pre_post_processors(config: RFTFConfig, dataset_stats: Any = None) -> tuple[Any, Any]:
    """LeRobot's pipelines before and after the model: a batch, on the config's device.

    Args:
        config: of the reward model.
        dataset_stats: not used, the value model normalises by itself.

    Returns:
        Preprocessor and postprocessor.
    """
    processor = lerobot_rewards_module("lerobot.processor")
    before = [
        processor.AddBatchDimensionProcessorStep(),
        processor.DeviceProcessorStep(device=config.device or "cpu"),
    ]
    return (
        processor.PolicyProcessorPipeline(steps=before, name="policy_preprocessor"),
        processor.PolicyProcessorPipeline(
            name="policy_postprocessor", to_transition=processor.policy_action_to_transition
        ),
    )


def _entry(batch: dict[str, Any], name: str, setting: str) -> Any:
    if name not in batch:
        raise KeyError(
            f"the batch has no {name!r}, which the value model reads; it has "
            f"{', '.join(map(repr, batch))}. RFTFConfig.{setting} names another entry."
        )
    return batch[name]
