import json
import math
import re

import pytest
import torch

from rftf_torchrl import EncoderConfig, HeadNetwork, VisionLanguageEncoder, keys

SMALL = {"channels": (4, 4, 4), "text_dim": 8, "image_dim": 16, "features": 16}


def inputs(config: EncoderConfig, *batch: int) -> dict[str, torch.Tensor]:
    return {
        "image": torch.randint(0, 256, (*batch, 3, 16, 16), dtype=torch.uint8),
        "state": torch.randn(*batch, 5),
        "tokens": torch.randint(1, 20, (*batch, 4)),
        "mask": torch.ones(*batch, 4, dtype=torch.bool),
    }


@pytest.mark.parametrize(
    ("image_size", "state_dim", "in_keys"),
    [
        (16, 5, [keys.IMAGE, keys.STATE, keys.TOKENS, keys.TOKEN_MASK]),
        (16, None, [keys.IMAGE, keys.TOKENS, keys.TOKEN_MASK]),
        (None, 5, [keys.STATE, keys.TOKENS, keys.TOKEN_MASK]),
    ],
)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_inputs_and_batch(image_size, state_dim, in_keys, batch):
    config = EncoderConfig(image_size=image_size, state_dim=state_dim, **SMALL)
    assert config.in_keys == in_keys
    network = HeadNetwork(VisionLanguageEncoder(config), (2, 3))
    data = inputs(config, *batch)
    assert network(*(data[name] for name in config.inputs)).shape == (*batch, 2, 3)


@pytest.mark.parametrize("name", ["image", "state", "tokens"])
def test_every_input_reaches_the_features(name):
    config = EncoderConfig(image_size=16, state_dim=5, **SMALL)
    encoder = VisionLanguageEncoder(config)
    data, other = inputs(config, 1), inputs(config, 1)
    assert not torch.equal(encoder(**data), encoder(**{**data, name: other[name]}))


def test_film_lets_the_instruction_choose_among_the_features_of_the_state():
    config = EncoderConfig(image_size=None, state_dim=5, film=True, **SMALL)
    encoder = VisionLanguageEncoder(config)
    data = inputs(config, 3)
    plain = VisionLanguageEncoder(EncoderConfig.from_dict({**config.to_dict(), "film": False}))
    plain.load_state_dict(encoder.state_dict(), strict=False)
    for film in encoder.films:
        torch.nn.init.zeros_(film.weight)
    assert torch.equal(encoder(**data), plain(**data))
    for film in encoder.films:
        torch.nn.init.constant_(film.bias, -1)  # gamma of -1 shuts every feature off
    torch.testing.assert_close(encoder(**data), torch.zeros(3, 16))


def test_train_and_eval_mode_agree():
    config = EncoderConfig(image_size=16, state_dim=5, **SMALL)
    encoder = VisionLanguageEncoder(config)
    data = inputs(config, 3)
    assert torch.equal(encoder.train()(**data), encoder.eval()(**data))


def test_state_is_standardised_and_the_statistics_are_saved():
    config = EncoderConfig(image_size=None, state_dim=5, **SMALL)
    plain, shifted = VisionLanguageEncoder(config), VisionLanguageEncoder(config)
    shifted.load_state_dict(plain.state_dict())
    mean, std = torch.arange(5.0), torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0])
    shifted.set_state_statistics(mean, std)
    data = inputs(config, 3)
    moved = data["state"] * torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0]) + mean
    torch.testing.assert_close(
        shifted(None, moved, data["tokens"], data["mask"]),
        plain(None, data["state"], data["tokens"], data["mask"]),
    )
    plain.load_state_dict(shifted.state_dict())
    assert torch.equal(plain.state_mean, mean)


def test_a_state_is_standardised_before_it_is_rounded_to_bfloat16():
    config = EncoderConfig(image_size=None, state_dim=1, **SMALL)
    encoder, seen = VisionLanguageEncoder(config), []
    encoder.state.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder.set_state_statistics(torch.tensor([1.3]), torch.tensor([0.01]))
    data = inputs(config, 50)
    state = 1.3 + 0.01 * torch.linspace(-1, 1, 50)[:, None]
    with torch.autocast("cpu", torch.bfloat16):
        encoder(None, state, data["tokens"], data["mask"])
    torch.testing.assert_close(seen[0].float(), (state - 1.3) / 0.01, rtol=1e-2, atol=1e-2)


def test_config_survives_json():
    config = EncoderConfig(image_size=None, state_dim=5, **SMALL)
    assert EncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_gain_zero_starts_at_zero():
    config = EncoderConfig(image_size=None, state_dim=5, **SMALL)
    network = HeadNetwork(VisionLanguageEncoder(config), (1,), gain=0.0)
    data = inputs(config, 3)
    assert torch.equal(network(*(data[n] for n in config.inputs)), torch.zeros(3, 1))


def build(**kwargs):
    return VisionLanguageEncoder(EncoderConfig(**{**SMALL, **kwargs}))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda: EncoderConfig(image_size=None, state_dim=None),
            "an encoder needs an image or a state: set image_size, state_dim or both.",
        ),
        (
            lambda: build(image_size=16).set_state_statistics(torch.zeros(5), torch.ones(5)),
            "this encoder has no state: build it with state_dim.",
        ),
        (
            lambda: build(state_dim=5).set_state_statistics(torch.zeros(4), torch.ones(5)),
            "mean must have shape (5,), got (4,).",
        ),
        (
            lambda: build(state_dim=2).set_state_statistics(*torch.tensor([[0, 0], [1, math.nan]])),
            "std is nan at index 1, expected finite numbers: a single frame has no deviation, give "
            "more frames.",
        ),
        (
            lambda: build(image_size=16)(
                None,
                None,
                torch.ones(1, 1, dtype=torch.int64),
                torch.ones(1, 1, dtype=torch.bool),
            ),
            "this encoder needs 'image' and got None: its config has inputs "
            "('image', 'tokens', 'mask').",
        ),
        (
            lambda: build(image_size=None, state_dim=5)(
                None,
                torch.zeros(1, 4),
                torch.ones(1, 1, dtype=torch.int64),
                torch.ones(1, 1, dtype=torch.bool),
            ),
            "state must end in 5 features, got shape (1, 4).",
        ),
        (
            lambda: HeadNetwork(build(image_size=16), (1,))(torch.zeros(1)),
            "expected the 3 inputs ('image', 'tokens', 'mask'), got 1.",
        ),
    ],
)
def test_errors(broken, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        broken()
