"""Value models on pretrained towers, with tiny checkpoints of the real classes."""

import json
import re
import sys

import pytest
import torch
from tensordict import TensorDict
from torch import nn

pytest.importorskip("transformers")
pytest.importorskip("peft")

from _towers import saved, tiny, tokenizer

from rftf_torchrl.modules import (
    EncoderConfig,
    PretrainedEncoderConfig,
    TemporalValueModel,
    cache_image_features,
    on_cached_features,
    temporal_value_model,
)
from rftf_torchrl.modules.towers import ImageTower, TextTower
from rftf_torchrl.objectives import TemporalRankingLoss
from rftf_torchrl.transforms import InstructionTokens, ValueReward

IMAGE_TOWERS = ["siglip", "clip", "dinov2", "vit_mae"]
TEXT_TOWERS = ["siglip", "clip", "bert"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name -> (model, folder) of every tiny checkpoint."""
    return {name: saved(name, tmp_path_factory.mktemp(name)) for name in (*IMAGE_TOWERS, "bert")}


@pytest.fixture(scope="module")
def config(folders):
    def built(image="siglip", text=None, **choices):
        text = None if text is None else folders[text][1]
        choices = {"features": 16, "layers": 1, "heads": 2, **choices}
        return PretrainedEncoderConfig.from_pretrained(folders[image][1], text, **choices)

    return built


def frames(*batch, size=32, length=6):
    tokens = torch.randint(3, 64, (*batch, length))
    mask = torch.arange(length) < torch.randint(2, length + 1, (*batch, 1))
    image = torch.randint(0, 256, (*batch, 3, size, size), dtype=torch.uint8)
    return TensorDict(
        {
            "observation": {"image": image},
            "instruction": {"tokens": torch.where(mask, tokens, 0), "mask": mask},
        },
        batch,
    )


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


@pytest.mark.parametrize("fusion", ["cross_attention", "concatenation", "film"])
@pytest.mark.parametrize("text", [None, "clip"])
def test_batched_equals_one_by_one(config, fusion, text):
    model = temporal_value_model(config(text=text, fusion=fusion)).eval()
    data = frames(2, 3)
    batched = model(data.copy())["temporal_value"]
    assert batched.shape == (2, 3, 1)
    for row in range(2):
        for column in range(3):
            one = data[row, column]
            length = int(one["instruction", "mask"].sum())
            one = TensorDict(
                {
                    "observation": one["observation"],
                    "instruction": one["instruction"].apply(lambda t, n=length: t[:n]),
                }
            )
            torch.testing.assert_close(model(one)["temporal_value"], batched[row, column])


@pytest.mark.parametrize("fusion", ["cross_attention", "concatenation", "film"])
def test_the_score_depends_on_picture_and_words(config, fusion):
    model = temporal_value_model(config(text="bert", fusion=fusion)).eval()
    data = frames(2)
    picture, words = data.clone(), data.clone()
    picture["observation", "image"] = 255 - data["observation", "image"]
    words["instruction", "tokens"] = (data["instruction", "tokens"] + 7) % 60 + 3
    assert (model.raw(data) - model.raw(picture)).abs().min() > 1e-5
    assert (model.raw(data) - model.raw(words)).abs().min() > 1e-5


@pytest.mark.parametrize("image", IMAGE_TOWERS)
@pytest.mark.parametrize("training", ["frozen", "lora", "full"])
def test_gradients_reach_what_is_trainable_and_nothing_else(config, image, training):
    text = {"siglip": "siglip", "clip": "clip"}.get(image, "bert")
    model = temporal_value_model(
        config(image, text, image_training=training, text_training=training, lora_rank=2)
    )
    model.train()
    assert model.network.image.tower.training == (training != "frozen")
    model.raw(frames(3)).square().sum().backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    assert trained == reached
    towers = {n for n in trained if n.startswith(("network.image", "network.text"))}
    if training == "frozen":
        assert not towers
    elif training == "lora":
        assert towers
        assert all(".lora_" in n for n in towers)
    else:
        assert len(towers) > 50
        assert not any(".lora_" in n for n in towers)


def test_adapters_start_as_the_checkpoint(config):
    image = frames(2)["observation", "image"]
    plain = ImageTower(config("clip")).eval()
    adapted = ImageTower(config("clip", image_training="lora")).eval()
    torch.testing.assert_close(adapted(image).detach(), plain(image))


@pytest.mark.parametrize("training", ["frozen", "lora"])
def test_save_and_load_need_no_checkpoint(config, tmp_path, training, monkeypatch):
    model = temporal_value_model(config("dinov2", "bert", image_training=training, grid=2)).eval()
    model.calibration.fit(torch.zeros(1), torch.full((1,), 2.0), mode="global")
    model.save(tmp_path / "value.safetensors")
    monkeypatch.setattr(
        "transformers.PreTrainedModel.from_pretrained", lambda *a, **k: pytest.fail("a download")
    )
    loaded = TemporalValueModel.load(tmp_path / "value.safetensors").eval()
    data = frames(4)
    assert torch.equal(loaded(data.copy())["temporal_value"], model(data.copy())["temporal_value"])
    assert loaded.config == model.config
    assert isinstance(loaded.config, PretrainedEncoderConfig)


def test_files_of_small_models_still_load_without_a_kind(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    small = EncoderConfig(image_size=None, state_dim=3, features=8)
    path = tmp_path / "value.safetensors"
    temporal_value_model(small).save(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["model"])
    assert header.pop("kind") == "small"
    save_file(tensors, path, {**metadata, "model": json.dumps(header)})
    assert TemporalValueModel.load(path).config == small


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


def transitions(count):
    data = frames(count + 1)
    data["instruction"] = data["instruction"][:1].expand(count + 1)
    following = data[1:].select("observation")
    following["success"] = torch.zeros(count, 1, dtype=torch.bool)
    following["terminated"] = torch.zeros(count, 1, dtype=torch.bool)
    return data[:-1].clone().set("next", following.clone())


def test_cached_features_give_the_same_reward_and_the_tower_runs_once_per_frame(config):
    model = temporal_value_model(config("dinov2", "bert")).eval()
    data = transitions(5)
    expected = ValueReward(model, gamma=0.9)(data.clone())
    seen = []
    model.network.image.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    cached = cache_image_features(model, data.clone(), dtype=torch.float32, minibatch=4)
    assert sum(seen) == 6
    found = ValueReward(on_cached_features(model), gamma=0.9)(cached.exclude("observation"))
    assert sum(seen) == 6
    for key in ("temporal_value", ("next", "temporal_value"), ("next", "dense_reward")):
        torch.testing.assert_close(found[key], expected[key])


def test_next_frames_that_do_not_follow_get_features_of_their_own(config):
    model = temporal_value_model(config("clip"))
    data = transitions(5)[torch.tensor([3, 0, 1, 4])]
    cached = cache_image_features(model, data, dtype=torch.float32)
    alone = cache_image_features(model, data["next"].clone(), dtype=torch.float32)
    torch.testing.assert_close(cached["next", "features", "image"], alone["features", "image"])


def test_what_is_learned_on_cached_features_is_the_models(config):
    model = temporal_value_model(config("siglip"))
    data = frames(3, 4)
    view = on_cached_features(model)
    loss = TemporalRankingLoss(view)
    before = model.raw(data).detach()
    tower = [p.clone() for p in model.network.image.parameters()]
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    loss(cache_image_features(model, data))["loss_ranking"].backward()
    optimizer.step()
    view.calibration.fit(torch.zeros(1), torch.full((1,), 3.0), mode="global")
    assert not torch.equal(model.raw(data), before)
    assert float(model.calibration.scale) == 3.0
    for old, new in zip(tower, model.network.image.parameters(), strict=True):
        assert torch.equal(old, new)
    values, expected = view(data.copy())["temporal_value"], model(data.copy())["temporal_value"]
    torch.testing.assert_close(values, expected, atol=5e-3, rtol=0)  # half precision


def moving_square(clips, frames, generator, shuffle):
    """Clips of a square that moves right under one instruction and left under the other."""
    start = torch.rand(clips, generator=generator) * 6
    direction = torch.randint(2, (clips,), generator=generator)
    time = torch.rand(clips, frames, generator=generator).sort(-1).values
    place = start[:, None] + torch.where(direction[:, None] > 0, time, 1 - time) * 18
    if shuffle:
        order = torch.rand(clips, frames, generator=generator).argsort(-1)
        place = place.gather(1, order)
    column = torch.arange(32)
    inside = (column >= place[..., None]) & (column < place[..., None] + 8)
    image = (inside[..., None, None, :] * 200 + 20).to(torch.uint8).expand(-1, -1, 3, 32, -1)
    tokens = (3 + direction)[:, None, None].expand(clips, frames, 1)
    return TensorDict(
        {
            "observation": {"image": image.contiguous()},
            "instruction": {"tokens": tokens, "mask": torch.ones_like(tokens).bool()},
        },
        [clips, frames],
    )


@pytest.mark.parametrize(("shuffle", "low", "high"), [(False, 0.85, 1.0), (True, 0.35, 0.65)])
def test_a_frozen_random_tower_learns_order_and_nothing_from_shuffled_time(
    config, shuffle, low, high
):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = temporal_value_model(config("dinov2", features=32))
    view = on_cached_features(model)
    loss = TemporalRankingLoss(view)
    clips = cache_image_features(model, moving_square(64, 6, generator, shuffle))
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss(clips)["loss_ranking"].backward()
        optimizer.step()
    held_out = cache_image_features(model, moving_square(64, 6, generator, shuffle=False))
    accuracy = float(loss(held_out)["pairwise_accuracy"])
    assert low < accuracy <= high


def test_own_tokenizer_through_instruction_tokens(config):
    keys = {"tokens_key": ("bert", "tokens"), "mask_key": ("bert", "mask")}
    transform = InstructionTokens(tokenizer(), max_length=12, **keys)
    data = frames(2).exclude("instruction")
    data["language_instruction"] = ["open window", "close window"]
    model = temporal_value_model(
        config(text="bert"), in_keys=[("observation", "image"), *keys.values()]
    )
    assert model.tokens_key == ("bert", "tokens")
    assert model(transform(data))["temporal_value"].shape == (2, 1)


def errors(config):
    model = temporal_value_model(config(text="bert"))
    long, foreign, floats = frames(2, length=17), frames(2), frames(2)
    foreign["instruction", "tokens"][0, 0] = 900
    floats["observation", "image"] = torch.rand(2, 3, 32, 32)
    return {
        "long": (
            lambda: model(long),
            "tokens must have at most 16 positions for this text tower, got shape (2, 17): give "
            "InstructionTokens a smaller max_length.",
        ),
        "foreign": (
            lambda: model(foreign),
            "token 900 is not among the 64 of this text tower: write the tokens by "
            "InstructionTokens(tokenizer) with the tower's own tokenizer.",
        ),
        "floats": (
            lambda: model(floats),
            "image must be a uint8 picture or cached features [*B, P, 32] of this model's own "
            "tower, got torch.float32 of shape (2, 3, 32, 32).",
        ),
        "stale": (
            lambda: on_cached_features(temporal_value_model(config(image_training="full"))),
            "the features of an image tower that is trained go stale: image_training is 'full', "
            "expected 'frozen'.",
        ),
        "no tower": (
            lambda: on_cached_features(TemporalValueModel(nn.Linear(1, 1), in_keys=["x"])),
            "only a value model on a pretrained image tower has features to cache, got the network "
            "Linear: build it by temporal_value_model(PretrainedEncoderConfig).",
        ),
        "grid": (
            lambda: temporal_value_model(config(grid=5)),
            "grid must be 1 to 4, the edge of this tower's patches, got 5: the patches are "
            "averaged, not made more.",
        ),
        "fusion": (
            lambda: config(fusion="addition"),
            "fusion must be one of ('cross_attention', 'concatenation', 'film'), got 'addition'.",
        ),
        "heads": (
            lambda: config(features=16, heads=3),
            "features must be a multiple of heads, got 16 and 3.",
        ),
        "no type": (
            lambda: PretrainedEncoderConfig({"hidden_size": 3}),
            "image must be a configuration of transformers with its 'model_type', got the keys "
            "['hidden_size'].",
        ),
    }


@pytest.mark.parametrize(
    "case", ["long", "foreign", "floats", "stale", "no tower", "grid", "fusion", "heads", "no type"]
)
def test_bad_input(config, case):
    call, message = errors(config)[case]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_a_checkpoint_that_lacks_weights_lists_them(tmp_path):
    model = tiny("dinov2")
    state = model.state_dict()
    gone = ["encoder.layer.1.norm1.bias", "layernorm.weight"]
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in state.items() if k not in gone})
    message = (
        f"{tmp_path} lacks weights of the dinov2 tower: {gone}. Expected a checkpoint of the same "
        "architecture."
    )
    config = PretrainedEncoderConfig.from_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        temporal_value_model(config)


def test_without_transformers_the_extra_is_named(config, monkeypatch):
    built = config()
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = "transformers is not installed: pip install 'rftf-torchrl[transformers]'."
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        temporal_value_model(built)


def test_importing_the_modules_imports_no_transformers():
    import subprocess

    code = "import sys, rftf_torchrl.modules; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("training", ["frozen", "lora"])
def test_bf16_scores_are_float32_and_near(config, training):
    model = temporal_value_model(config("clip", "bert", image_training=training)).eval()
    data = frames(4)
    exact = model.raw(data)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.raw(data)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.05
