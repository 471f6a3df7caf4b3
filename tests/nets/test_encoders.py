import re

import pytest
import torch

from rftf_torchrl import ImageEncoder, TokenEncoder, random_shift


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("size", [16, 30, 64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_image_encoder_keeps_the_batch(size, batch):
    encoder = ImageEncoder(size, text_dim=4, channels=(4, 4, 4), out_dim=8)
    assert encoder(images(*batch, 3, size, size), torch.zeros(*batch, 4)).shape == (*batch, 8)


def test_each_row_is_encoded_alone():
    encoder = ImageEncoder(16, text_dim=4, channels=(4, 4, 4), out_dim=8)
    image, text = images(2, 3, 3, 16, 16), torch.randn(2, 3, 4)
    together = encoder(image, text)
    torch.testing.assert_close(together[1, 2], encoder(image[1, 2], text[1, 2]))


def test_text_modulates_the_image():
    encoder = ImageEncoder(16, text_dim=4, channels=(4, 4, 4), out_dim=8)
    image = images(1, 3, 16, 16)
    assert not torch.equal(encoder(image, torch.zeros(1, 4)), encoder(image, torch.ones(1, 4)))


@pytest.mark.parametrize(
    ("error", "image", "message"),
    [
        (
            TypeError,
            torch.zeros(1, 3, 16, 16),
            "image must be uint8 in 0..255, got torch.float32: pass the frame as it was recorded, "
            "the network scales it.",
        ),
        (
            ValueError,
            torch.zeros(1, 3, 8, 16, dtype=torch.uint8),
            "image must end in shape (3, 16, 16), got (1, 3, 8, 16): resize the frames or build "
            "the encoder with their image_size.",
        ),
    ],
)
def test_image_errors(error, image, message):
    encoder = ImageEncoder(16, text_dim=4, channels=(4, 4, 4), out_dim=8)
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        encoder(image, torch.zeros(1, 4))


def test_padding_tokens_have_no_influence():
    encoder = TokenEncoder(16, max_tokens=6, embedding_dim=8, out_dim=8)
    short = torch.tensor([[1, 2]])
    long = torch.tensor([[1, 2, 9, 9]])
    mask = torch.tensor([[True, True, False, False]])
    torch.testing.assert_close(encoder(long, mask), encoder(short, short > 0))


def test_word_order_counts():
    encoder = TokenEncoder(16, max_tokens=6, embedding_dim=8, out_dim=8)
    tokens = torch.tensor([[1, 2], [2, 1]])
    ab, ba = encoder(tokens, torch.ones(2, 2, dtype=torch.bool))
    assert (ab - ba).abs().max() > 1e-4


def test_an_empty_instruction_is_finite():
    encoder = TokenEncoder(16, max_tokens=6, embedding_dim=8, out_dim=8)
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    assert encoder(tokens, tokens > 0).isfinite().all()


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        (
            torch.zeros(1, 7, dtype=torch.int64),
            torch.ones(1, 7, dtype=torch.bool),
            "tokens must have at most 6 positions, got shape (1, 7): build the encoder with a "
            "larger max_tokens.",
        ),
        (
            torch.zeros(1, 3, dtype=torch.int64),
            torch.ones(1, 2, dtype=torch.bool),
            "mask must have the shape of tokens, got (1, 2) and (1, 3).",
        ),
    ],
)
def test_token_errors(tokens, mask, message):
    encoder = TokenEncoder(16, max_tokens=6, embedding_dim=8, out_dim=8)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        encoder(tokens, mask)


def test_random_shift_moves_pixels_and_repeats_the_border():
    column = torch.arange(8, dtype=torch.uint8)
    image = column.expand(1, 3, 8, 8)
    seen = set()
    for seed in range(30):
        moved = random_shift(image, 2, torch.Generator().manual_seed(seed))
        offset = int(moved[0, 0, 0, 4]) - 4
        expected = (torch.arange(8) + offset).clamp(0, 7).to(torch.uint8)
        assert torch.equal(moved, expected.expand(1, 3, 8, 8))
        seen.add(offset)
    assert seen == {-2, -1, 0, 1, 2}


def test_random_shift_differs_between_rows_but_not_between_channels():
    image = images(1, 1, 12, 12).expand(16, 3, 12, 12)
    moved = random_shift(image, 4, torch.Generator().manual_seed(0))
    assert torch.equal(moved[:, 0], moved[:, 2])
    assert len({tuple(row.flatten().tolist()) for row in moved[:, 0]}) > 8


def test_no_shift_is_the_identity():
    image = images(2, 3, 8, 8)
    assert torch.equal(random_shift(image, 0), image)
