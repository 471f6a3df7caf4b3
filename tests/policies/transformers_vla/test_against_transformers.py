"""The fast path gives what the models and processors of ``transformers`` give themselves."""

import numpy as np
import pytest
import torch

from rftf_torchrl import TransformersPolicySpec

transformers = pytest.importorskip("transformers")

FAMILIES = ["smolvlm", "idefics3", "paligemma", "qwen2_5_vl", "qwen3_vl"]


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_what_the_image_processor_gives(described, checkpoint, observations, family):
    spec = described(family, head="gaussian")
    network = spec.load(checkpoint(family)).module[0].model.network
    inputs = spec.observation_transform()(observations)["vla_inputs"]
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint(family), backend="pil")
    for row in range(5):
        picture = observations["observation", "image"][row].numpy()
        listed = [[picture]] if family in ("smolvlm", "idefics3") else [picture]
        expected = processor(listed, return_tensors="pt", input_data_format="channels_first")
        found = network.normalised(inputs["pixel_values"][row])
        torch.testing.assert_close(found, expected["pixel_values"].reshape(found.shape))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_whole_model(described, checkpoint, observations, family):
    """Query tokens in place of words of the vocabulary: then the model can be asked itself."""
    spec = described(family)
    check_logits(spec, spec.load(checkpoint(family)), observations, family)


def check_logits(spec, policy, observations, family):
    vla = policy.module[0]
    network = vla.model.network
    words = torch.arange(100, 106)
    with torch.no_grad():
        network.queries.copy_(network.backbone.get_input_embeddings()(words))
    data = spec.observation_transform()(observations)
    with torch.no_grad():
        found = policy(data.clone())["logits"]
    for row in range(5):
        inputs = data["vla_inputs"][row]
        prompt = inputs["input_ids"][inputs["attention_mask"]]
        ids = torch.cat([prompt, words])[None]
        pixels = network.normalised(inputs["pixel_values"])
        arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if family == "paligemma":
            arguments["token_type_ids"] = (torch.arange(ids.shape[1]) >= len(prompt)).long()[None]
        elif family.startswith("qwen"):
            arguments["image_grid_thw"] = inputs["image_grid_thw"]
            arguments["mm_token_type_ids"] = (ids == network.image_token_id).int()
        else:
            pixels = pixels[None]
        with torch.no_grad():
            expected = network.backbone(pixel_values=pixels, **arguments).logits[0, -6:]
        expected = expected[:, list(spec.action_tokens)].unflatten(0, (2, 3))
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)


def test_action_tokens_that_were_added_to_the_vocabulary(checkpoint, observations, tmp_path):
    """New words for the bins, in another order than their ids', and rows of the model for them."""
    source = checkpoint("smolvlm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    bins = [f"<bin {number}>" for number in range(5)]
    assert tokenizer.add_tokens(bins) == 5
    ids = tuple(tokenizer.convert_tokens_to_ids(bins[::-1]))
    model = transformers.AutoModelForImageTextToText.from_pretrained(source)
    vocabulary = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(max(vocabulary, max(ids) + 1))
    for part in (
        model,
        tokenizer,
        transformers.AutoImageProcessor.from_pretrained(source, backend="pil"),
    ):
        part.save_pretrained(tmp_path)
    spec = TransformersPolicySpec.from_pretrained(
        tmp_path, chunk_size=2, action_dim=3, action_tokens=ids, prompt_tokens=32
    )
    assert spec.action_tokens == ids
    policy = spec.load(tmp_path)
    check_logits(spec, policy, observations, "smolvlm")
    loaded = spec.from_dict(spec.to_dict())
    assert loaded.action_tokens == ids


def test_the_prompt_of_paligemma_is_that_of_its_processor(described, checkpoint, observations):
    spec = described("paligemma")
    own = spec.processor()
    theirs = transformers.PaliGemmaProcessor(
        image_processor=_with_length(own.image_processor, 16), tokenizer=own.tokenizer
    )
    image = observations["observation", "image"][0]
    found = own(image[None, None], ["open the drawer"])
    expected = theirs(
        images=image.permute(1, 2, 0).numpy(),
        text="<image>What action should the robot take to open the drawer?",
        return_tensors="np",
    )
    real = found["input_ids"][found["attention_mask"]]
    assert real.tolist() == expected["input_ids"][0].tolist()
    assert set(np.asarray(expected["token_type_ids"])[0].tolist()) == {0}


def _with_length(image_processor, tokens):
    image_processor.image_seq_length = tokens
    return image_processor


def test_the_prompt_of_smolvlm_has_the_picture_as_its_processor_writes_it(described):
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    family = described("smolvlm").processor().family
    expected = get_image_prompt_string(
        0, 0, 4, "<fake_token_around_image>", "<image>", "<global-img>"
    )
    assert family.picture.format(tokens="<image>" * 4) == expected


def test_every_dropout_is_off(checkpoint):
    from rftf_torchrl import build_backbone, load_config

    config = load_config(checkpoint("smolvlm"))
    config["text_config"]["attention_dropout"] = 0.5
    config["vision_config"]["attention_dropout"] = 0.5
    model = build_backbone(config).train()
    inputs = {
        "input_ids": torch.tensor([[4, 5, *[3] * 4, 4, 20]]),
        "pixel_values": torch.ones(1, 1, 3, 28, 28),
    }
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)
