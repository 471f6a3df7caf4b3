"""A value model on a pretrained tower, trained from demonstrations and used as a reward."""

import pytest
import torch
from tiny import TINY

pytest.importorskip("transformers")

from _towers import saved

from rftf_torchrl import ConfigError, ImageTower, TemporalValueModel, load_demonstrations

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]

PIXELS = [setting for setting in TINY if not setting.startswith("env.image_size")]


@pytest.fixture(scope="module")
def cloned(configure, tmp_path_factory):
    """The configuration of a run from pixels with demonstrations and a cloned policy."""
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_bc import clone

    config = configure(*PIXELS, "env.image_size=32", f"output={tmp_path_factory.mktemp('run')}")
    collect(config)
    clone(config)
    return config


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("siglip", []),
        ("clip", ["value=ranking_rollouts"]),
        ("dinov2", ["+value.options.tower_training=lora", "+value.options.fusion=film"]),
    ],
)
def test_from_a_folder_to_the_reward(cloned, configure, tmp_path, monkeypatch, name, overrides):
    from rftf_torchrl.recipes.finetune import finetune
    from rftf_torchrl.recipes.train_value import train_value

    model, folder = saved(name, tmp_path / "tower")
    config = configure(
        *PIXELS,
        *overrides,
        "env.image_size=32",
        "value.kind=pretrained",
        "+value.options.grid=2",
        "value.shuffle_time=true",
        "ppo.iterations=1",
        f"+value.options.image_tower={folder}",
        f"output={tmp_path / 'run'}",
        f"demos.path={cloned.output}/demos",
        f"policy.path={cloned.output}/bc/policy.safetensors",
    )
    seen = []
    forward = ImageTower.forward
    monkeypatch.setattr(
        ImageTower, "forward", lambda self, image: seen.append(len(image)) or forward(self, image)
    )
    file, _ = train_value(config)
    if name == "siglip":  # two to try it, once per frame, then the calibration and the report
        demonstrations = load_demonstrations(f"{cloned.output}/demos")
        ends = 2 * len(demonstrations.select(split="train").episodes)
        assert sum(seen) == 2 + len(demonstrations.frames) + ends + 64 * config.value.frames

    value_model = TemporalValueModel.load(file)
    assert value_model.config.image_source == folder
    original = (model if name == "dinov2" else model.vision_model).state_dict()
    for key, weight in value_model.network.image.tower.state_dict().items():
        if "lora_" not in key:
            assert torch.equal(weight, original[key.replace(".base_layer", "")])
    result = finetune(config)
    assert result["env_steps"] > 0


def test_a_tower_needs_pictures(configure):
    with pytest.raises(ConfigError, match=r"value\.kind=pretrained needs images: set env"):
        configure(*TINY, "value.kind=pretrained", "+value.options.image_tower=x", "output=x")


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        (["policy=smolvlm"], "policy.pretrained"),
        (["value.kind=pretrained"], "value.options.image_tower"),
    ],
)
def test_a_model_that_is_nowhere_is_refused_before_anything_is_made(
    configure, tmp_path, settings, setting
):
    from rftf_torchrl.recipes.quickstart import quickstart

    output, source = tmp_path / "run", tmp_path / "nothing"
    settings = [*settings, f"++{setting}={source}", "env.image_size=32", f"output={output}"]
    with pytest.raises(ConfigError, match=f"^{setting}={source}: there is no such folder, and it "):
        quickstart(configure(*PIXELS, *settings))
    assert not (output / "demos").exists()
