"""One clear error for each wrong input, with its whole message."""

import json
import re
import shutil
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rftf_torchrl import (
    ActionTokenHead,
    QueryNetwork,
    TransformersPolicySpec,
    TransformersVLA,
    VLAInputs,
    VLAProcessor,
    action_token_ids,
    load_backbone,
    load_config,
)
from rftf_torchrl.optional import transformers_module

pytest.importorskip("transformers")


def whole(message):
    return f"^{re.escape(message)}$"


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of the tiny SmolVLM that a test may break."""
    return shutil.copytree(checkpoint("smolvlm"), tmp_path / "model")


def change_config(folder, **entries):
    file = folder / "config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text(encoding="utf-8")), **entries}), encoding="utf-8"
    )


def test_transformers_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    expected = (
        "this policy needs the package transformers: pip install 'rftf-torchrl[transformers]'"
    )
    with pytest.raises(ModuleNotFoundError, match=whole(expected)):
        transformers_module("this policy")


def test_every_wrong_weight_of_a_checkpoint_is_listed(copy):
    weights = load_file(copy / "model.safetensors")
    with safe_open(copy / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    del weights["model.connector.modality_projection.proj.weight"]
    del weights["lm_head.weight"]
    weights["model.text_model.extra.weight"] = torch.zeros(2)
    weights["model.text_model.norm.weight"] = torch.zeros(16)
    save_file(weights, copy / "model.safetensors", metadata)
    expected = (
        f"the weights in {copy} are not those of its model:\n"
        "  - missing: lm_head.weight\n"
        "  - missing: model.connector.modality_projection.proj.weight\n"
        "  - unexpected: model.text_model.extra.weight\n"
        "  - model.text_model.norm.weight: shape (16,), expected (32,)"
    )
    with pytest.raises(ValueError, match=whole(expected)):
        load_backbone(copy)


def test_a_tokenizer_without_the_image_token(copy):
    change_config(copy, image_token_id=400)
    expected = (
        "the tokenizer has no image token: the model's image_token_id is 400, and the tokenizer's "
        "320 tokens have none of that number. Take the processor that was saved with the model."
    )
    with pytest.raises(ValueError, match=whole(expected)):
        TransformersPolicySpec.from_pretrained(copy, chunk_size=1, action_dim=2)


def test_a_tokenizer_that_breaks_the_image_token(copy):
    change_config(copy, image_token_id=20)  # a word of the vocabulary, which is not kept whole
    config = load_config(copy)
    processor = VLAProcessor.from_pretrained(copy, config)
    processor.image_token = "no such word"
    expected = (
        "the prompt has 1 image tokens 'no such word' after tokenization, and the model writes 4 "
        "features into them: the tokenizer does not keep that token whole. Take the processor that "
        "was saved with the model."
    )
    with pytest.raises(ValueError, match=whole(expected)):
        processor(torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8), ["open"])


def test_a_prompt_that_is_too_long(described, observations):
    transform = described("smolvlm", prompt_tokens=20).observation_transform()
    transform(observations[:1])
    expected = (
        "the prompt of the instruction 'close the red window please' has 22 tokens besides those "
        "of the image, and prompt_tokens is 20: raise it, or shorten the prompt."
    )
    with pytest.raises(ValueError, match=whole(expected)):
        transform(observations)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{image} do it", "the prompt '{image} do it' has {instruction} 0 times, expected once."),
        (
            "{image}{image}{instruction}",
            "the prompt '{image}{image}{instruction}' has {image} 2 times, expected once.",
        ),
    ],
)
def test_a_prompt_without_its_places(described, prompt, message):
    with pytest.raises(ValueError, match=whole(message)):
        described("smolvlm", prompt=prompt)


def test_pictures_that_are_split(described, observations):
    options = {"do_image_splitting": True, "size": {"longest_edge": 56}}
    transform = described("smolvlm", image_options=options).observation_transform()
    expected = (
        "the image processor made 5 tiles of 1 images: splitting images is not supported, call "
        "it with do_image_splitting=False."
    )
    with pytest.raises(ValueError, match=whole(expected)):
        transform(observations)


def test_another_family(copy):
    change_config(copy, model_type="llava")
    expected = (
        "model_type is 'llava', and the known families are idefics3, smolvlm, paligemma, qwen2_vl, "
        "qwen2_5_vl, qwen3_vl: choose a model of one of these, or describe yours by a policy spec "
        "of your own."
    )
    with pytest.raises(ValueError, match=whole(expected)):
        TransformersPolicySpec.from_pretrained(copy, chunk_size=1, action_dim=2)


def test_weights_that_are_not_finite(described, checkpoint, observations):
    for head, what, count in (
        ("tokens", "logits", 5 * 96),
        ("gaussian", "means", 5 * 6),
        ("flow", "denoised means", 5 * 4 * 6),
    ):
        spec = described("smolvlm", head=head)
        policy = spec.load(checkpoint("smolvlm"))
        network = next(m for m in policy.modules() if isinstance(m, QueryNetwork))
        with torch.no_grad():
            network.queries.fill_(float("nan"))
        expected = (
            f"{count} of {count} {what} of the policy are not finite: its weights diverged, an "
            "observation is not finite, or its precision is too low for this model (try bfloat16 "
            "or float32)."
        )
        data = spec.observation_transform()(observations.clone())
        with pytest.raises(FloatingPointError, match=f"^{re.escape(expected)}"):
            policy(data.exclude("language_instruction"))


def test_a_network_with_another_number_of_queries(described, checkpoint):
    spec = described("smolvlm")
    features = spec.features(load_backbone(checkpoint("smolvlm")), 5)
    head = ActionTokenHead([9, 8], chunk_size=2, action_dim=3)
    expected = "the network has 5 queries, and a chunk of 2 actions of size 3 needs 6."
    with pytest.raises(ValueError, match=whole(expected)):
        TransformersVLA(features, head, chunk_size=2, action_dim=3)


def test_inputs_that_are_missing(described, checkpoint, observations):
    spec = described("smolvlm", state_dim=4)
    policy = spec.load(checkpoint("smolvlm"))
    expected = (
        "('vla_inputs', 'input_ids') is missing, and the policy reads it: append its "
        "observation_transform() to the environment, and call it on demonstrations."
    )
    with pytest.raises(KeyError, match=re.escape(expected)):
        policy(observations.clone())
    data = spec.observation_transform()(observations.clone())
    data["observation", "state"] = torch.zeros(5, 3)
    expected = "state must end in 4 features, got shape (5, 3)."
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        policy(data)


def test_a_sentence_or_a_picture_that_is_missing(observations):
    transform = VLAInputs(lambda images, texts: {})
    expected = (
        "'language_instruction' is missing, and the policy's processor reads it: environments "
        "write 'language_instruction' with write_text=True, and images with an image_size, those "
        "of CALVIN's gripper camera with a wrist_size."
    )
    with pytest.raises(KeyError, match=re.escape(expected)):
        transform(observations.exclude("language_instruction"))
    with pytest.raises(KeyError, match="'image'"):
        transform(observations.exclude(("observation", "image")))


def test_pictures_that_are_not_bytes(described):
    processor = described("smolvlm").processor()
    with pytest.raises(
        TypeError, match=whole("images must be uint8 in 0..255, got torch.float32.")
    ):
        processor(torch.zeros(1, 1, 3, 8, 8), ["open"])


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        (320, "bins must be at least 2 and below the 320 tokens of the vocabulary."),
        (
            309,
            "the last 309 tokens of the vocabulary have the special tokens [11, 12] among them: "
            "name the action tokens by action_tokens.",
        ),
    ],
)
def test_action_tokens_that_are_taken(described, bins, message):
    tokenizer = described("smolvlm").processor().tokenizer
    assert action_token_ids(tokenizer, 3) == (319, 318, 317)
    with pytest.raises(ValueError, match=whole(message)):
        action_token_ids(tokenizer, bins)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": [3, 2], "temperature": 0.0}, "temperature must be above 0, got 0.0."),
        ({"tokens": [3, 3]}, "expected at least 2 different action tokens, got [3, 3]."),
    ],
)
def test_a_head_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=whole(message)):
        ActionTokenHead(**arguments, chunk_size=2, action_dim=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "words"}, "head must be 'tokens', 'gaussian' or 'flow', got 'words'."),
        ({"head": "tokens"}, "head='tokens' needs action_tokens, see action_token_ids."),
    ],
)
def test_a_spec_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=whole(message)):
        TransformersPolicySpec({}, 2, 3, **options)
