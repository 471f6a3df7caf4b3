"""Tiny checkpoints of every tower, and configurations of value models on them."""

import pytest
from _tower_inputs import IMAGE_TOWERS


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Name -> (model, folder) of every tiny checkpoint."""
    from _towers import saved

    return {name: saved(name, tmp_path_factory.mktemp(name)) for name in (*IMAGE_TOWERS, "bert")}


@pytest.fixture(scope="session")
def config(folders):
    """A function from towers and choices to a configuration."""
    from rftf_torchrl import PretrainedEncoderConfig

    def built(image="siglip", text=None, **choices):
        text = None if text is None else folders[text][1]
        choices = {"features": 16, "layers": 1, "heads": 2, **choices}
        return PretrainedEncoderConfig.from_pretrained(folders[image][1], text, **choices)

    return built
