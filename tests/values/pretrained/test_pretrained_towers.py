"""Towers are their checkpoints, and take images as their processors give them."""

import json

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from _tower_inputs import IMAGE_TOWERS, TEXT_TOWERS, frames
from _towers import saved

from rftf_torchrl import ImageTower, PretrainedEncoderConfig, TextTower


def reference_patches(name, model, pixels):
    """What the original class computes, called as its documentation does."""
    if name in ("siglip", "clip"):
        return model.vision_model(pixel_values=pixels).last_hidden_state
    if name == "dinov2":
        return model(pixel_values=pixels).last_hidden_state
    return model.vit(pixel_values=pixels, noise=torch.zeros(len(pixels), 16)).last_hidden_state


@pytest.mark.parametrize("name", IMAGE_TOWERS)
def test_an_image_tower_is_the_checkpoint(folders, config, name):
    tower = ImageTower(config(name))
    image = frames(3)["observation", "image"]
    pixels = tower.normalised(image)
    expected = reference_patches(name, folders[name][0], pixels)
    if name == "vit_mae":  # it hides three quarters of the patches: compare with all of them shown
        folders[name][0].config.mask_ratio = 0.0
        folders[name][0].vit.embeddings.config.mask_ratio = 0.0
        expected = reference_patches(name, folders[name][0], pixels)
    with torch.no_grad():
        torch.testing.assert_close(tower(image), expected)
    assert tower(image).shape == (3, 16 if name == "siglip" else 17, 32)


@pytest.mark.parametrize("name", TEXT_TOWERS)
def test_a_text_tower_is_the_checkpoint_and_padding_does_not_leak(folders, config, name):
    tower = TextTower(config(text=name)).eval()
    tokens = torch.tensor([[5, 6, 7, 2], [5, 6, 7, 2], [8, 2, 0, 0]])
    mask = torch.tensor([[True] * 4, [True] * 4, [True, True, False, False]])
    model = folders[name][0]
    text = model if name == "bert" else model.text_model
    with torch.no_grad():
        whole = text(input_ids=tokens[:1]).last_hidden_state
        short = text(input_ids=tokens[2:, :2]).last_hidden_state
    found = tower(tokens, mask)
    torch.testing.assert_close(found[:2], whole.expand(2, -1, -1))
    torch.testing.assert_close(found[2:, :2], short)


def test_adapters_start_as_the_checkpoint(config):
    image = frames(2)["observation", "image"]
    plain = ImageTower(config("clip")).eval()
    adapted = ImageTower(config("clip", image_training="lora")).eval()
    torch.testing.assert_close(adapted(image).detach(), plain(image))


def test_a_config_reads_how_pictures_were_shown(tmp_path):
    settings = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "size": {"shortest_edge": 48},
        "crop_size": {"height": 40, "width": 40},
        "resample": 3,
    }
    _, folder = saved("dinov2", tmp_path, **settings)
    config = PretrainedEncoderConfig.from_pretrained(folder)
    assert (config.image_size, config.resample) == (40, "bicubic")
    image = torch.full((1, 3, 40, 40), 51, dtype=torch.uint8)
    tower = ImageTower(config)
    expected = torch.tensor([0.1 / 0.4, 0.0, -0.1 / 0.6]).reshape(1, 3, 1, 1).expand(1, 3, 40, 40)
    torch.testing.assert_close(tower.normalised(image), expected)
    assert tower(image).shape == (1, 1 + 5 * 5, 32)
    assert PretrainedEncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_checkpoint_that_says_nothing_of_its_pictures_gets_its_familys(config):
    assert config("siglip").image_mean == (0.5, 0.5, 0.5)
    assert config("dinov2").image_mean == (0.485, 0.456, 0.406)
    assert config("clip").image_size == 32


def test_resizing_is_that_of_the_image_processor(config):
    from PIL import Image

    tower = ImageTower(config("siglip"))
    image = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    picture = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((32, 32), Image.BILINEAR)
    pixels = torch.tensor(list(picture.tobytes())).reshape(32, 32, 3).permute(2, 0, 1) / 255
    expected = (pixels - 0.5) / 0.5
    # PIL rounds to whole grey levels, 2 / 255 of the normalised range, once per axis.
    assert (tower.normalised(image)[0] - expected).abs().max() < 2.01 / 255


@pytest.mark.parametrize("name", ["siglip", "clip", "vit_mae"])
def test_another_picture_size_interpolates_the_positions(config, name):
    tower = ImageTower(config(name, image_size=48))
    assert tower(frames(2)["observation", "image"]).shape[1] == 36 + (name != "siglip")


def test_a_grid_averages_neighbouring_patches(config):
    image = frames(2)["observation", "image"]
    whole, pooled = ImageTower(config("clip"))(image), ImageTower(config("clip", grid=2))(image)
    assert pooled.shape == (2, 1 + 4, 32)
    torch.testing.assert_close(pooled[:, 0], whole[:, 0])
    corner = whole[:, 1:].reshape(2, 4, 4, 32)[:, :2, :2].mean((1, 2))
    torch.testing.assert_close(pooled[:, 1], corner)
