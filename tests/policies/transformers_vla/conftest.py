"""Tiny models of every family on disk, loaded by the code that loads real ones."""

import pytest
import torch
from _vla_settings import SENTENCES
from tensordict import NonTensorStack, TensorDict

FAMILIES = ["smolvlm", "idefics3", "paligemma", "qwen2_5_vl", "qwen3_vl"]
SIZES = {"chunk_size": 2, "action_dim": 3, "bins": 16, "prompt_tokens": 32}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The quick check tries one family of models; the others are slow tests."""
    for item in items:
        if hasattr(item, "callspec") and item.callspec.params.get("family") in FAMILIES[1:]:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A function from a family to the folder of its tiny model."""
    pytest.importorskip("transformers")
    from rftf_torchrl import save_tiny_vlm

    folders = {}

    def folder(family):
        if family not in folders:
            folders[family] = save_tiny_vlm(tmp_path_factory.mktemp(family), family)
        return folders[family]

    return folder


@pytest.fixture(scope="session")
def described(checkpoint):
    """A function from a family to a spec."""
    from rftf_torchrl import TransformersPolicySpec

    def spec(family, **options):
        return TransformersPolicySpec.from_pretrained(checkpoint(family), **{**SIZES, **options})

    return spec


@pytest.fixture
def observations():
    """Five observations with instructions of different lengths."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (5, 3, 40, 40), generator=generator, dtype=torch.uint8)
    state = torch.randn(5, 4, generator=generator)
    data = TensorDict({"observation": {"image": image, "state": state}}, [5])
    data["language_instruction"] = NonTensorStack(*SENTENCES)
    return data
