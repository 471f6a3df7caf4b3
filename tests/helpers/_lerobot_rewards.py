"""LeRobot's reward models: its own package where there is one, else stand-ins of its interface.

The stand-ins have the names, signatures and demands of lerobot 0.6.1: models read what their
preprocessor wrote, SARM reads a window of frames, changes instructions in training, takes the first
instruction for the whole batch and blanks frames in place.
"""

import json
import sys
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import nn

IMAGE = "observation.images.top"
STATE = "observation.state"


class FeatureType(str, Enum):
    STATE = "STATE"
    VISUAL = "VISUAL"


class Mode(str, Enum):
    IDENTITY = "IDENTITY"
    MEAN_STD = "MEAN_STD"


@dataclass
class RewardModelConfig:
    device: str | None = None
    pretrained_path: str | None = None
    pretrained_revision: str | None = None

    kinds = {}  # noqa: RUF012
    observation_delta_indices = None
    input_features = {IMAGE: SimpleNamespace(type=FeatureType.VISUAL)}  # noqa: RUF012
    normalization_mapping = {"VISUAL": Mode.IDENTITY, "STATE": Mode.MEAN_STD}  # noqa: RUF012

    def __post_init__(self):
        self.device = self.device or "cpu"

    @classmethod
    def register_subclass(cls, name):
        return lambda kind: cls.kinds.setdefault(name, kind)

    @property
    def type(self):
        return next(name for name, kind in self.kinds.items() if kind is type(self))

    def _save_pretrained(self, save_directory):
        text = json.dumps({"type": self.type, **asdict(self)})
        Path(save_directory, "config.json").write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path,
        *,
        force_download=False,
        token=None,
        cache_dir=None,
        local_files_only=False,
        revision=None,
    ):
        given = json.loads(Path(pretrained_name_or_path, "config.json").read_text(encoding="utf-8"))
        return cls.kinds[given.pop("type")](**given)


class PreTrainedRewardModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        if not isinstance(config, RewardModelConfig):
            raise ValueError("config must be a RewardModelConfig")
        self.config = config

    def reset(self):
        pass

    def save_pretrained(self, save_directory):
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self._save_pretrained(Path(save_directory))


@RewardModelConfig.register_subclass("robometer")
@dataclass
class RobometerConfig(RewardModelConfig):
    image_key: str = IMAGE


@RewardModelConfig.register_subclass("topreward")
@dataclass
class TOPRewardConfig(RobometerConfig):
    pass


@RewardModelConfig.register_subclass("reward_classifier")
@dataclass
class RewardClassifierConfig(RewardModelConfig):
    normalization_mapping = {"VISUAL": Mode.MEAN_STD}  # noqa: RUF012


@RewardModelConfig.register_subclass("sarm")
@dataclass
class SARMConfig(RewardModelConfig):
    n_obs_steps: int = 2
    rewind: int = 1

    input_features = {  # noqa: RUF012
        IMAGE: SimpleNamespace(type=FeatureType.VISUAL),
        STATE: SimpleNamespace(type=FeatureType.STATE),
    }

    @property
    def observation_delta_indices(self):
        return list(range(1 + self.n_obs_steps + self.rewind))


@RewardModelConfig.register_subclass("two_cameras")
@dataclass
class TwoCamerasConfig(RewardModelConfig):
    input_features = {  # noqa: RUF012
        name: SimpleNamespace(type=FeatureType.VISUAL)
        for name in (IMAGE, "observation.images.wrist")
    }


class Encoded(PreTrainedRewardModel):
    """Robometer and TOPReward: brightness plus the length of the instruction, as encoded."""

    def __init__(self, config):
        super().__init__(config)
        self.one = nn.Parameter(torch.ones(()))

    def compute_reward(self, batch):
        video, words = batch["observation.encoded.video"], batch["observation.encoded.words"]
        assert not self.training
        return (self.one * video.mean((1, 2, 3, 4)) + words).detach()


class Bright(PreTrainedRewardModel):
    """The classifier reads its image."""

    def compute_reward(self, batch):
        return batch[IMAGE].mean((1, 2, 3))


class SARM(PreTrainedRewardModel):
    def compute_reward(self, batch):
        video, state = batch["video_features"], batch["state_features"]
        now = self.config.n_obs_steps
        return video[:, now] + state[:, now].sum(-1) + batch["text_features"]


def encode(batch):
    image = batch[IMAGE]
    assert image.dtype == torch.float32
    assert image.ndim == 4
    assert len(batch["task"]) == len(image)
    words = torch.tensor([float(len(task)) for task in batch["task"]])
    return {
        **batch,
        "observation.encoded.video": image[:, None],
        "observation.encoded.words": words,
    }


@dataclass
class Normalise:
    stats: dict

    def __call__(self, batch):
        done = dict(batch)
        for name, stats in (self.stats or {}).items():
            done[name] = (batch[name] - stats["mean"]) / stats["std"]
        return done


@dataclass
class EncodeWindow:
    """SARM's encoder; in training it changes the instruction."""

    config: SARMConfig
    training: bool = True

    def eval(self):
        self.training = False
        return self

    def __call__(self, batch):
        image, state = batch[IMAGE].numpy(), batch[STATE]
        count, frames = image.shape[:2]
        assert image.ndim == 5
        assert frames == len(self.config.observation_delta_indices)
        assert batch["index"].shape == batch["episode_index"].shape == (count,)
        image[:, 1 + self.config.n_obs_steps :] = 0
        task = "changed at random" if self.training else batch["task"][0]
        return {
            "video_features": torch.from_numpy(image).mean((2, 3, 4)),
            "state_features": state,
            "text_features": torch.full((count,), float(len(task))),
        }


@dataclass
class Pipeline:
    steps: list = field(default_factory=list)
    name: str = "policy_preprocessor"
    to_transition: object = None

    def __call__(self, batch):
        for step in self.steps:
            batch = step(batch)
        return batch


class AddBatchDimensionProcessorStep:
    def __call__(self, batch):
        added = {k: v[None] for k, v in batch.items() if k.startswith(IMAGE) and v.ndim == 3}
        return {**batch, **added}


@dataclass
class DeviceProcessorStep:
    device: str

    def __call__(self, batch):
        return {k: v.to(self.device) if hasattr(v, "to") else v for k, v in batch.items()}


MODELS = {
    "robometer": Encoded,
    "topreward": Encoded,
    "reward_classifier": Bright,
    "sarm": SARM,
    "two_cameras": Bright,
}


def make_reward_model(cfg):
    return MODELS[cfg.type](config=cfg)


def make_reward_pre_post_processors(reward_cfg, dataset_stats=None):
    steps = [Normalise(dataset_stats)]
    if reward_cfg.type in ("robometer", "topreward"):
        steps.append(encode)
    elif reward_cfg.type == "sarm":
        steps.append(EncodeWindow(reward_cfg))
    return Pipeline(steps), Pipeline()


STAND_INS = {
    "lerobot": {"__version__": "0.6.1"},
    "lerobot.configs": {},
    "lerobot.configs.rewards": {"RewardModelConfig": RewardModelConfig},
    "lerobot.rewards": {
        "make_reward_model": make_reward_model,
        "make_reward_pre_post_processors": make_reward_pre_post_processors,
    },
    "lerobot.rewards.pretrained": {"PreTrainedRewardModel": PreTrainedRewardModel},
    "lerobot.processor": {
        "AddBatchDimensionProcessorStep": AddBatchDimensionProcessorStep,
        "DeviceProcessorStep": DeviceProcessorStep,
        "PolicyProcessorPipeline": Pipeline,
        "policy_action_to_transition": None,
    },
}


def install_stand_ins(monkeypatch):
    """Put the stand-ins where LeRobot would be."""
    for name, members in STAND_INS.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)


def lerobot_has_rewards():
    """Whether LeRobot itself is there, in a version with reward models."""
    return find_spec("lerobot") is not None and find_spec("lerobot.rewards") is not None


def save_config(folder, kind, **settings):
    """A folder of a reward model, as far as the stand-ins need one."""
    folder.mkdir(exist_ok=True)
    config = RewardModelConfig.kinds[kind](**settings)
    assert {each.name for each in fields(config)} >= set(settings)
    config._save_pretrained(folder)
    return str(folder)
