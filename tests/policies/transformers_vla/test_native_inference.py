"""A policy on a vision-language model beside transformers itself, before and after an export."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from _vla_settings import SENTENCES

from rftf_torchrl import (
    add_lora,
    compare_with_native,
    export_policy,
    load_policy,
    merge_lora,
    save_policy,
)

transformers = pytest.importorskip("transformers")

every_family = pytest.mark.parametrize(
    "family", ["smolvlm", "idefics3", "paligemma", "qwen2_5_vl", "qwen3_vl"]
)
HEADS = {
    "actions": {"decoding": "autoregressive"},
    "autoregressive with a state": {"decoding": "autoregressive", "state_dim": 4},
    "tokens": {},
    "gaussian": {"head": "gaussian", "state_dim": 4},
}


def compared(policy, spec, source, **options):
    return compare_with_native(policy, spec, source, SENTENCES, image_size=40, **options)


def tuned(policy):
    """Other weights than those that were loaded."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return policy


@every_family
@pytest.mark.parametrize("head", HEADS)
def test_a_wrapped_model_computes_what_it_computes_itself(described, checkpoint, family, head):
    spec = described(family, **HEADS[head])
    found = compared(spec.load(checkpoint(family)), spec, checkpoint(family))
    assert found.what == ("actions" if head == "actions" else "logits after the prompt")
    assert found.ours.shape == ((5, 2, 3) if head == "actions" else (5, 320))
    assert found.largest <= 1e-5
    assert torch.equal(found.ours, found.native) or head != "actions"
    assert found.native.std() > 0.01 or head == "actions"


@every_family
def test_an_exported_policy_acts_the_same_in_transformers(described, checkpoint, tmp_path, family):
    spec = described(family, decoding="autoregressive")
    before = spec.load(checkpoint(family))
    policy = tuned(deepcopy(before))
    export_policy(policy, spec, tmp_path / "exported")
    found = compared(policy, spec, tmp_path / "exported")
    assert torch.equal(found.ours, found.native)
    assert not torch.equal(found.ours, compared(before, spec, checkpoint(family)).ours)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert tokenizer("open the drawer") == transformers.AutoTokenizer.from_pretrained(
        checkpoint(family)
    )("open the drawer")


def test_what_is_ours_lies_beside_the_model(described, checkpoint, tmp_path):
    from safetensors.torch import load_file

    spec = described("smolvlm", head="gaussian", state_dim=4)
    policy = tuned(spec.load(checkpoint("smolvlm")))
    export_policy(policy, spec, tmp_path / "exported")
    whole = dict(policy.state_dict())
    kept = load_file(tmp_path / "exported" / "action_head.safetensors")
    model = spec.load(tmp_path / "exported").state_dict()
    assert kept.keys() == {name for name in whole if ".backbone." not in name}
    for name, weight in whole.items():
        found = kept[name] if name in kept else model[name]
        torch.testing.assert_close(found, weight, atol=0, rtol=0)


def test_adapters_are_merged_before(described, checkpoint, tmp_path):
    from peft import LoraConfig

    spec = described("smolvlm", decoding="autoregressive")
    policy = spec.load(checkpoint("smolvlm"))
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    add_lora(policy, lora, part="module.0.model.network.backbone")
    tuned(policy)
    with pytest.raises(ValueError) as refused:
        export_policy(policy, spec, tmp_path / "exported")
    assert str(refused.value) == ("the policy has low-rank adapters: merge_lora(policy) first.")
    save_policy(merge_lora(policy), spec, tmp_path / "policy.safetensors")
    policy, spec = load_policy(tmp_path / "policy.safetensors")
    export_policy(policy, spec, tmp_path / "exported")
    found = compared(policy, spec, tmp_path / "exported")
    assert torch.equal(found.ours, found.native)


def test_other_statistics_show(described, checkpoint):
    spec = described("smolvlm")
    other = replace(spec, image_mean=(0.1, 0.2, 0.3))
    assert compared(other.load(checkpoint("smolvlm")), other, checkpoint("smolvlm")).largest > 1e-3


def test_the_table(described, checkpoint):
    spec = described("smolvlm")
    found = compared(spec.load(checkpoint("smolvlm")), spec, checkpoint("smolvlm"))
    assert found.table() == (
        "compared               logits after the prompt, 5 x 320\n"
        f"largest difference     {found.largest:.3g}\n"
        "bit for bit            no\n"
        "image                  40 x 40, which the model sees as 3 x 28 x 28\n"
        "statistics of images   scaled by 0.00392157, mean 0.5, 0.5, 0.5, deviation 0.5, 0.5, "
        "0.5\n"
        f"prompt                 {spec.processor().prompt!r}\n"
        "statistics of actions  16 bins, centres from -1 to 1"
    )
