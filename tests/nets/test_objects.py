"""Objects in a state: one encoder for all, and the words choose."""

import json
import re

import pytest
import torch

from rftf_torchrl import EncoderConfig, ObjectEncoder, VisionLanguageEncoder

OBJECTS = ((1, 4), (6, 0), (3, 5))
SIZES = {"state_dim": 7, "vocab_size": 12, "features": 16}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = ObjectEncoder(OBJECTS, **SIZES)
    torch.nn.init.normal_(encoder.votes.weight, std=0.1)
    return encoder


@pytest.fixture
def inputs():
    """States [2, 3, 7] and words [2, 3, 4], of which the padding has a number, too."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(12, (2, 3, 4), generator=generator)
    return torch.randn(2, 3, 7, generator=generator), tokens, torch.arange(4).expand(2, 3, 4) < 2


def test_the_formula(encoder, inputs):
    state, tokens, _ = (part[1, 2] for part in inputs)
    encoded = [torch.relu(encoder.encode(state[[*entries, 2]])) for entries in OBJECTS]
    votes = encoder.votes.weight[tokens[0]] + encoder.votes.weight[tokens[1]]
    chosen = sum(w * h for w, h in zip((10 * votes).softmax(0), encoded, strict=True))
    expected = torch.cat([chosen, sum(encoded) / 3])
    torch.testing.assert_close(encoder(*inputs)[1, 2], expected)


def test_objects_and_votes_may_change_places_together(encoder, inputs):
    state, *words = inputs
    before = encoder(state, *words)
    order = [2, 0, 1]
    moved = state.clone()
    for place, source in enumerate(order):
        moved[..., list(OBJECTS[place])] = state[..., list(OBJECTS[source])]
    assert (encoder(moved, *words) - before).abs().max() > 0.01
    with torch.no_grad():
        encoder.votes.weight.copy_(encoder.votes.weight[:, order].clone())
    torch.testing.assert_close(encoder(moved, *words), before)


def test_words_learn_which_object_they_name():
    """From votes of 0: the named object's entry is to be told."""
    torch.manual_seed(0)
    encoder = ObjectEncoder(((0,), (1,), (2,)), state_dim=3, vocab_size=5, features=8)
    head = torch.nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(200):
        state, named = torch.randn(64, 3), torch.randint(3, (64,))
        tokens = torch.stack([torch.full_like(named, 1), 2 + named], -1)
        found = head(encoder(state, tokens, tokens > 0))[:, 0]
        error = (found - state.gather(1, named[:, None])[:, 0]).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert error < 0.2, "the mean of the three, which needs no words, is off by 2/3"


def test_every_weight_learns(encoder, inputs):
    encoder(*inputs).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_a_state_of_nothing_but_objects():
    encoder = ObjectEncoder(((0,), (1,)), state_dim=2, vocab_size=8, features=4)
    words = torch.ones(3, 2, dtype=torch.long)
    assert encoder(torch.ones(3, 2), words, words > 0).shape == (3, 8)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (((0, 1), (2,)), "objects need equally many entries each, one or more, got [2, 1]"),
        ((), "objects need equally many entries each, one or more, got []"),
        (((), ()), "objects need equally many entries each, one or more, got [0, 0]"),
        (((0,), (7,)), "objects: entry 7 is outside of a state of 7, or stands twice"),
        (((0,), (-1,)), "objects: entry -1 is outside of a state of 7, or stands twice"),
        (((0,), (0,)), "objects: entry 0 is outside of a state of 7, or stands twice"),
    ],
)
def test_what_are_no_objects(objects, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ObjectEncoder(objects, **SIZES)
    if objects:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            EncoderConfig(image_size=None, state_dim=7, objects=objects)


def test_the_whole_encoder_with_objects():
    """Its config survives JSON, and all objects are standardised by the same numbers."""
    config = EncoderConfig(image_size=None, state_dim=7, features=16, objects=OBJECTS)
    assert EncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    encoder = VisionLanguageEncoder(config)
    encoder.set_state_statistics(torch.arange(7.0), torch.arange(1.0, 8.0))
    assert encoder.state_mean.tolist() == pytest.approx([3, 10 / 3, 2, 10 / 3, 3, 3, 10 / 3])
    std = torch.ones(7)
    moving, still = OBJECTS[0][0], OBJECTS[1][0]
    std[[each[0] for each in OBJECTS]] = 0.06
    std[still] = 0.0  # in these demonstrations
    encoder.set_state_statistics(torch.zeros(7), std)
    share = 0.06 * (len(OBJECTS) - 1) / len(OBJECTS)
    assert encoder.state_std[[moving, still]].tolist() == pytest.approx([share, share])
    tokens = torch.tensor([[1, 2, 0]])
    found = encoder(None, torch.randn(1, 7), tokens, tokens > 0)
    assert found.shape == (1, 16)
    found.sum().backward()
    assert encoder.objects.votes.weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match=re.escape("mean must have shape (7,), got (5,)")):
        encoder.set_state_statistics(torch.zeros(5), torch.ones(5))
