"""Tiny policies of LeRobot's own classes, observations for them, and a toy environment."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

pytest.importorskip("lerobot")

from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from tensordict import NonTensorData, NonTensorStack, TensorDict
from torchrl.data import Bounded, Categorical, Composite, NonTensor, Unbounded
from torchrl.envs import EnvBase, TransformedEnv

from rftf_torchrl import LeRobotSpec, keys

INPUTS = {"observation.images.camera1": keys.IMAGE, "observation.state": keys.STATE}
FEATURES = {
    "input_features": {
        "observation.images.camera1": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
        "observation.state": PolicyFeature(FeatureType.STATE, (5,)),
    },
    "output_features": {"action": PolicyFeature(FeatureType.ACTION, (4,))},
    "device": "cpu",
}
WORDS = ["open", "close", "the", "window", "drawer", "\n"]


def act_config(state_dim=5, action_dim=4):
    state = PolicyFeature(FeatureType.STATE, (state_dim,))
    action = PolicyFeature(FeatureType.ACTION, (action_dim,))
    return ACTConfig(
        input_features={**FEATURES["input_features"], "observation.state": state},
        output_features={"action": action},
        device="cpu",
        chunk_size=4,
        n_action_steps=4,
        pretrained_backbone_weights=None,
        dim_model=16,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        n_decoder_layers=1,
        latent_dim=4,
        n_vae_encoder_layers=1,
    )


def save_act(folder, state_dim, action_dim):
    """Save an ACT policy with its processors as LeRobot does, and return it."""
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = act_config(state_dim, action_dim)
    policy = get_policy_class("act")(config)
    policy.save_pretrained(folder)
    half = {"mean": torch.zeros(action_dim), "std": torch.full((action_dim,), 0.5)}
    statistics = {
        "observation.images.camera1": {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)},
        "observation.state": {"mean": torch.zeros(state_dim), "std": torch.full((state_dim,), 0.5)},
        "action": half,
    }
    for pipeline in make_pre_post_processors(config, dataset_stats=statistics):
        pipeline.save_pretrained(folder)
    return policy


def smolvla_config(folder):
    """A config whose vision-language model is a tiny one in `folder`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import (
        PreTrainedTokenizerFast,
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    special = ["<pad>", "<unk>", "<image>", "<fake_token_around_image>", "<global-img>"]
    vocabulary = {word: i for i, word in enumerate([*special, "<end_of_utterance>", *WORDS])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )
    SmolVLMProcessor(
        SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor(), image_seq_len=4
    ).save_pretrained(folder)
    SmolVLMConfig(
        image_token_id=2,
        scale_factor=2,
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vocab_size": 32,
            "pad_token_id": 0,
        },
    ).save_pretrained(folder)
    return SmolVLAConfig(
        **FEATURES,
        chunk_size=4,
        n_action_steps=4,
        max_state_dim=8,
        max_action_dim=8,
        resize_imgs_with_padding=(32, 32),
        vlm_model_name=str(folder),
        load_vlm_weights=False,
        num_vlm_layers=2,
        num_steps=2,
        tokenizer_max_length=6,
        pad_language_to="max_length",
    )


def random_stats():
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return {
            "mean": torch.randn(*shape, generator=generator),
            "std": torch.rand(*shape, generator=generator) + 0.5,
        }

    return {
        "observation.images.camera1": normal(3, 1, 1),
        "observation.state": normal(5),
        "action": normal(4),
    }


def observation(*batch):
    generator = torch.Generator().manual_seed(4)
    data = TensorDict(
        {
            "observation": {
                "image": torch.randint(
                    0, 256, (*batch, 3, 32, 32), dtype=torch.uint8, generator=generator
                ),
                "state": torch.randn(*batch, 5, generator=generator),
            }
        },
        batch,
    )
    count = data.batch_size.numel()
    texts = (["open the window", "close drawer"] * count)[:count]
    if not batch:
        data[keys.INSTRUCTION_TEXT] = texts[0]
    elif len(batch) == 1:
        data[keys.INSTRUCTION_TEXT] = texts
    else:
        rows = [texts[i : i + batch[1]] for i in range(0, count, batch[1])]
        data[keys.INSTRUCTION_TEXT] = NonTensorStack(*[NonTensorStack(*row) for row in rows])
    return data


@dataclass(frozen=True)
class LeRobotFactory:
    """Environments of another factory, with the transform of a spec."""

    factory: Callable
    spec: dict

    def __call__(self, episode):
        transform = LeRobotSpec.from_dict(self.spec).observation_transform()
        return TransformedEnv(self.factory(episode), transform)


class ToyRobot(EnvBase):
    """It looks at noise, obeys nothing, and is told what to do in words."""

    def __init__(self):
        super().__init__(device="cpu")
        self.observation_spec = Composite(
            observation=Composite(
                image=Bounded(0, 255, shape=(3, 32, 32), dtype=torch.uint8), state=Unbounded((5,))
            ),
            language_instruction=NonTensor((), example_data="open the window"),
        )
        self.action_spec = Composite(vla_action=Composite(chunk=Unbounded((3, 4))))
        self.reward_spec = Unbounded((1,))
        self.done_spec = Composite(
            done=Categorical(2, shape=(1,), dtype=torch.bool),
            terminated=Categorical(2, shape=(1,), dtype=torch.bool),
        )

    def _observe(self):
        found = observation().exclude(keys.INSTRUCTION_TEXT)
        found[keys.INSTRUCTION_TEXT] = NonTensorData("open the window")
        return found

    def _reset(self, tensordict=None):
        return self._observe().update(self.done_spec.zero())

    def _step(self, tensordict):
        return self._observe().update(self.done_spec.zero()).set("reward", torch.zeros(1))

    def _set_seed(self, seed):
        """There is no randomness."""
