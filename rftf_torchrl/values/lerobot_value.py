"""Reward models of LeRobot, and anything with their interface, as value models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.sentences import words_of
from rftf_torchrl.nets.sizes import ObservationSizes
from rftf_torchrl.optional import lerobot_rewards_module
from rftf_torchrl.settings import Text
from rftf_torchrl.transforms.instruction_tokens import HashTokenizer
from rftf_torchrl.values.calibration import same_instruction
from rftf_torchrl.values.score_module import score_module

_TASK = "task"
_READS_WORDS = ("robometer", "sarm", "topreward")


@nested_keys
def lerobot_value(
    model: Any,
    inputs: Mapping[str, NestedKey],
    *,
    preprocess: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    sentences: Sequence[str] = (),
    window: int | None = None,
) -> TensorDictModule:
    """Makes a value model of a reward model with LeRobot's interface.

    The reward model is any object with ``compute_reward(batch) -> [B]``. It gets a batch of
    LeRobot's data loader: images float32 [B, 3, H, W] in 0..1, states float32 [B, D], and
    ``"task"``, a list of B instructions. It stays on the device where it is, and is not trained.

    A value model reads tensors, so that the instructions are found by their tokens, among
    `sentences`. The model is called once for each instruction of a batch, because SARM takes the
    first instruction for all.

    Args:
        model: the reward model.
        inputs: name in LeRobot's batch -> key of our observation, e.g.
            ``{"observation.images.top": ("observation", "image")}``.
        preprocess: LeRobot's preprocessor, from batch to batch; None where the model reads the
            batch as it is.
        sentences: every instruction that the data hold, where the model reads them.
        window: for a model that reads frames before and after (SARM): their number. A state is
            shown as that many frames in which nothing moves, [B, window, ...].

    Returns:
        The value model, which writes float32 [*B, 1].

    Raises:
        ValueError: if two instructions have the same tokens; on use, if the data hold another
            instruction, or the model does not give one number each.

    Examples:
        >>> from tensordict import TensorDict
        >>> class Length:
        ...     def compute_reward(self, batch):
        ...         return torch.tensor([len(task) for task in batch["task"]])
        >>> inputs = {"observation.state": ("observation", "state")}
        >>> model = lerobot_value(Length(), inputs, sentences=["push", "pull it"])
        >>> tokens, _ = HashTokenizer()(["pull it", "push"])
        >>> data = {"observation": {"state": torch.zeros(2, 3)}, "instruction": {"tokens": tokens}}
        >>> model(TensorDict(data, [2]))["temporal_value"].flatten().tolist()
        [7.0, 4.0]
    """
    words = {_TASK: keys.TOKENS} if sentences else {}
    return score_module(_OneSentenceEach(model, preprocess, sentences, window), {**inputs, **words})


@dataclass(frozen=True)
class LeRobotValue:
    """A reward model of LeRobot 0.6, used as it is, see :func:`lerobot_value`.

    Attributes:
        path: folder of the model, or hub id of one that normalises nothing.
        inputs: name in LeRobot's batch -> key of our observation; None takes the image for the
            model's only camera, and the state where the model reads one.
        sentences: every instruction of the run's tasks, for a model that reads them (SARM,
            Robometer, TOPReward).
    """

    trained: ClassVar[bool] = False
    pretrained_option: ClassVar[str] = "path"

    path: Text
    inputs: dict[str, str | tuple[str, ...]] | None = None
    sentences: tuple[Text, ...] = ()

    def build(self, sizes: ObservationSizes) -> TensorDictModuleBase:
        """The model, on LeRobot's choice of device."""
        rewards = lerobot_rewards_module("lerobot.rewards")
        configs = lerobot_rewards_module("lerobot.configs.rewards")
        config = configs.RewardModelConfig.from_pretrained(self.path)
        if config.type in _READS_WORDS and not self.sentences:
            raise ValueError(
                f"{self.path}: a {config.type!r} model reads the instruction of the task: list "
                "those of your tasks in value.options.sentences."
            )
        config.pretrained_path = self.path
        stats = _statistics(self.path, config)
        model = rewards.make_reward_model(config)
        preprocess, _ = rewards.make_reward_pre_post_processors(config, dataset_stats=stats)
        for step in preprocess.steps:
            if hasattr(step, "eval"):  # SARM's changes instructions at random in training
                step.eval()
        window = config.observation_delta_indices
        return lerobot_value(
            model,
            _usual_inputs(self.path, config) if self.inputs is None else self.inputs,
            preprocess=preprocess,
            sentences=self.sentences,
            window=None if window is None else len(window),
        )


class _OneSentenceEach(nn.Module):
    """Asks a reward model once per instruction; keeps the model out of ``to`` and ``train``."""

    model: Any

    def __init__(
        self,
        model: Any,
        preprocess: Callable[[dict[str, Any]], dict[str, Any]] | None,
        sentences: Sequence[str],
        window: int | None,
    ) -> None:
        super().__init__()
        self.__dict__["model"] = model
        if isinstance(model, nn.Module):
            model.eval().requires_grad_(False)
        self.preprocess, self.window = preprocess, window
        self.sentences = tuple(dict.fromkeys(sentences))
        words = max([len(words_of(sentence)) for sentence in self.sentences], default=0)
        self.tokens = HashTokenizer(max_length=max(words, 1))(self.sentences)[0]
        same = (self.tokens[:, None] == self.tokens).all(-1).triu(1).nonzero().tolist()
        if same:
            first, second = (self.sentences[row] for row in same[0])
            raise ValueError(
                f"the instructions {first!r} and {second!r} have the same tokens: leave one out."
            )

    def compute_reward(self, batch: dict[str, Tensor]) -> Tensor:
        tokens = batch.pop(_TASK, None)
        first = next(iter(batch.values()))
        rows = torch.zeros(len(first), dtype=torch.int64) if tokens is None else self._rows(tokens)
        scores = torch.zeros(len(first), device=first.device)
        for row in rows.unique().tolist():
            here = (rows == row).to(first.device)
            part: dict[str, Any] = {name: value[here] for name, value in batch.items()}
            count = int(here.sum())
            if self.window is not None:
                # Copies: SARM's preprocessor blanks frames in place.
                part = {
                    name: value[:, None].repeat_interleave(self.window, 1)
                    for name, value in part.items()
                }
                part["index"] = part["episode_index"] = torch.zeros(count, dtype=torch.int64)
            if tokens is not None:
                part[_TASK] = [self.sentences[row]] * count
            found = self.model.compute_reward(self.preprocess(part) if self.preprocess else part)
            if found.shape not in ((count,), (count, 1)):
                raise ValueError(
                    f"{type(self.model).__name__}.compute_reward must give one number for each of "
                    f"{count} states, got shape {tuple(found.shape)}."
                )
            scores[here] = found.reshape(count).to(scores)
        return scores

    def _rows(self, tokens: Tensor) -> Tensor:
        """The instruction of each row of tokens, by its place in the list."""
        tokens = tokens.cpu()
        match = same_instruction(tokens, self.tokens)
        if not match.any(-1).all():
            row = int((~match.any(-1)).nonzero()[0])
            raise ValueError(
                f"the instruction of row {row} is none of the {len(self.sentences)} instructions, "
                f"by its tokens {tokens[row][tokens[row] != 0].tolist()}: list every instruction "
                "of the data in sentences (value.options.sentences)."
            )
        return match.to(torch.uint8).argmax(-1)


def _usual_inputs(path: str, config: Any) -> dict[str, NestedKey]:
    cameras = [name for name in config.input_features if name.startswith("observation.image")]
    if len(cameras) != 1:
        raise ValueError(
            f"{path} has {len(cameras)} cameras ({', '.join(cameras)}): say in "
            "value.options.inputs which of our keys each of its inputs gets, e.g. "
            "{observation.images.top: [observation, image]}."
        )
    found: dict[str, NestedKey] = {cameras[0]: keys.IMAGE}
    state = "observation.state"
    return {**found, state: keys.STATE} if state in config.input_features else found


def _statistics(path: str, config: Any) -> dict[str, dict[str, Tensor]] | None:
    """What the preprocessor beside the model normalises by."""
    files = sorted(Path(path).glob("*preprocessor_step_*_normalizer_processor.safetensors"))
    found: dict[str, dict[str, Tensor]] = {}
    for file in files:
        for name, value in load_file(file).items():
            feature, _, statistic = name.rpartition(".")
            found.setdefault(feature, {})[statistic] = value
    modes = {_word(name): _word(mode) for name, mode in config.normalization_mapping.items()}
    lacking = [
        name
        for name, feature in config.input_features.items()
        if modes.get(_word(feature.type), "IDENTITY") != "IDENTITY" and name not in found
    ]
    if lacking:
        raise ValueError(
            f"{path}: the model was trained on normalised {', '.join(lacking)}, and the folder has "
            "no statistics of a preprocessor: save LeRobot's preprocessor there, by "
            "preprocessor.save_pretrained(folder)."
        )
    return found or None


def _word(member: Any) -> str:
    """The value of a member of an enumeration, which is a string."""
    return str(getattr(member, "value", member))
