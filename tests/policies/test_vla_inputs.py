"""Images and instructions as GR-MG's and Seer's encoders take them."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from tensordict import TensorDict

from rftf_torchrl.paper_policies.blocks.clip_text import ClipTextConfig
from rftf_torchrl.paper_policies.blocks.clip_tokens import ClipTokens, tokenizer_files
from rftf_torchrl.paper_policies.blocks.pictures import (
    CLIP,
    IMAGENET,
    clip_picture,
    imagenet_picture,
)
from rftf_torchrl.paper_policies.blocks.vit import sincos_2d


def picture(height, width):
    """A smooth image with edges, as cameras give."""
    y, x = np.mgrid[:height, :width]
    channels = [np.sin(x / 9) + np.cos(y / 7), (x + y) % 40 / 20 - 1, (x > 30) * 2.0 - 1]
    return (127 + 60 * np.stack(channels, axis=-1)).astype(np.uint8)


def tensor(array):
    return torch.from_numpy(array).permute(2, 0, 1)[None]


def denormalised(image, statistics):
    mean, std = (torch.tensor(s).view(3, 1, 1) for s in statistics)
    return (image * std + mean) * 255


@pytest.mark.parametrize("shape", [(200, 200), (84, 84), (240, 320), (320, 240)])
def test_clip_pictures_are_pils(shape):
    array = picture(*shape)
    scale = 224 / min(shape)
    size = tuple(int(edge * scale) for edge in shape)
    resized = Image.fromarray(array).resize(size[::-1], Image.Resampling.BICUBIC)
    top, left = (round((edge - 224) / 2) for edge in size)
    expected = tensor(np.array(resized)[top : top + 224, left : left + 224]).float()
    found = denormalised(clip_picture(tensor(array), 224), CLIP)
    different = (found - expected).abs()
    assert float(different.max()) < 1.01
    assert float((different > 0.5).float().mean()) < 0.001


def cubic(distance, a=-0.75):
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


@pytest.mark.parametrize("edge", [20, 28])
def test_gr_mg_pictures_are_sampled_without_antialias(edge):
    """Four taps per axis, also where the image shrinks, and neither rounding nor clipping."""
    array, size = picture(edge, edge), 24
    weights = torch.zeros(size, edge)
    for i in range(size):
        centre = (i + 0.5) * edge / size - 0.5
        first = int(np.floor(centre)) - 1
        for tap in range(first, first + 4):
            weights[i, min(max(tap, 0), edge - 1)] += cubic(centre - tap)
    expected = weights @ tensor(array)[0].float() @ weights.T
    found = denormalised(imagenet_picture(tensor(array), size), IMAGENET)[0]
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=1e-4)


def test_pictures_of_the_right_size_are_only_normalised():
    array = picture(16, 16)
    for found, statistics in (
        (imagenet_picture(tensor(array), 16), IMAGENET),
        (clip_picture(tensor(array), 16), CLIP),
    ):
        expected = tensor(array).float()
        torch.testing.assert_close(denormalised(found, statistics), expected, atol=1e-3, rtol=0)


def test_position_table_by_hand():
    table = sincos_2d(2, 8)
    w = 0.01  # 10000 ** (-4 / 8)
    row, column = 1.0, 0.0  # third cell
    expected = []
    for position in (column, row):
        expected += [np.sin(position), np.sin(position * w), np.cos(position), np.cos(position * w)]
    torch.testing.assert_close(table[2], torch.tensor(expected, dtype=torch.float32))


CONFIG = ClipTextConfig(vocab_size=64, context=6)


def test_hashed_words():
    tokens = ClipTokens(CONFIG)
    row = tokens.encode("Push the, push!")
    assert row[0] == 62
    assert row[4:].tolist() == [63, 0]
    assert row[1] == row[3] != row[2]
    assert 1 <= int(row[1:4].min()) <= int(row[1:4].max()) <= 61


def test_every_row_gets_its_sentence():
    data = TensorDict(batch_size=[2])
    data["language_instruction"] = ["push", "pull"]
    tokens = ClipTokens(CONFIG)
    found = tokens(data)["vla_inputs", "clip_tokens"]
    assert torch.equal(found, torch.stack([tokens.encode("push"), tokens.encode("pull")]))
    kept = tokens(data.exclude("language_instruction"))  # the tokens are there already
    assert torch.equal(kept["vla_inputs", "clip_tokens"], found)


def test_no_sentence():
    with pytest.raises(KeyError, match="'language_instruction' is missing, so there is no instr"):
        ClipTokens(CONFIG)(TensorDict(batch_size=[2]))
    with pytest.raises(TypeError, match=r"^'language_instruction' must hold strings, got float.$"):
        ClipTokens(CONFIG)(TensorDict({"language_instruction": torch.ones(1)}, [1]))


def test_too_long_a_sentence():
    message = (
        "the instruction 'a b c d e' has 5 tokens, expected 1 to 4: shorten it, or give the task "
        "one."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ClipTokens(CONFIG).encode("a b c d e")


def test_a_tokenizer_of_transformers(tmp_path):
    pytest.importorskip("transformers")
    letters = [*"pushdown", *(f"{letter}</w>" for letter in "pushdown")]
    names = [*dict.fromkeys(letters), "pu", "sh</w>", "push</w>"]
    names += [f"<{i}>" for i in range(62 - len(names))] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: i for i, name in enumerate(names)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "merges.txt").write_text(
        "#version: 0.2\np u\ns h</w>\npu sh</w>\n", encoding="utf-8"
    )
    row = ClipTokens(CONFIG, tokenizer_files(str(tmp_path))).encode("Push")
    assert row.tolist() == [62, vocabulary["push</w>"], 63, 0, 0, 0]
    files = tokenizer_files(str(tmp_path)) | {"../outside": b""}
    with pytest.raises(ValueError, match=r"'\.\./outside': expected names of files inside"):
        ClipTokens(CONFIG, files).encode("Push")
    (tmp_path / "merges.txt").unlink()
    message = (
        f"no CLIP tokenizer in {tmp_path}: merges.txt missing. Download "
        "openai/clip-vit-base-patch32 into a folder first."
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        tokenizer_files(str(tmp_path))
