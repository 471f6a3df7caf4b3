"""GR-MG and Seer from their own checkpoints, and their specs as they are saved."""

import json
import re
from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")
from _paper_policies import SPECS, build, rollout
from _tiny_vlas import gr_mg_checkpoint, seer_checkpoints

from rftf_torchrl import (
    GRMG,
    Seer,
    SeerConfig,
    SeerSpec,
    export_policy,
    load_gr_mg_checkpoint,
    load_seer_checkpoint,
    save_policy,
)


def test_save_and_load(spec, tmp_path):
    files = {"vocab.json": b"{}"}
    described = json.loads(json.dumps(replace(spec, files=files).to_dict()))
    assert type(spec).from_dict({**described, "files": files}) == replace(spec, files=files)
    same = type(spec).from_dict(described)
    assert same == spec
    assert type(spec).from_dict({"chunk_size": 2}) == type(spec)(chunk_size=2)
    policy = build(spec)
    data = rollout(spec, policy)
    other = build(same, seed=1)
    other.load_state_dict(policy.state_dict())
    expected = policy.get_dist(data.clone()).arm.loc
    assert torch.equal(other.get_dist(data.clone()).arm.loc, expected)


def test_networks_are_where_the_loaders_look():
    assert isinstance(build(SPECS["gr_mg"])[0].module.network, GRMG)
    assert isinstance(build(SPECS["seer"])[0].module.network, Seer)
    assert SeerSpec(SeerConfig.large(), chunk_size=3).action_dim == 7


def test_spec_load(tmp_path):
    """What recipes call with ``policy.pretrained``."""
    network = build(SPECS["gr_mg"])[0].module.network
    torch.save(gr_mg_checkpoint(network), tmp_path / "gr_mg.ckpt")
    with pytest.raises(ValueError, match=r"tokenizer=<folder with CLIP's vocab.json and merges"):
        SPECS["gr_mg"].load(str(tmp_path / "gr_mg.ckpt"))
    gr_mg, seer = (replace(spec, files={"vocab.json": b"{}"}) for spec in SPECS.values())
    policy = gr_mg.load(str(tmp_path / "gr_mg.ckpt"))
    load_gr_mg_checkpoint(network, tmp_path / "gr_mg.ckpt")
    loaded = policy[0].module.network.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())
    with pytest.raises(FileNotFoundError, match=re.escape("<epoch>.pth, it has [].")):
        seer.load(str(tmp_path))
    with pytest.raises(
        ValueError, match=f"^the weights in {re.escape(str(tmp_path))} were trained"
    ):
        SPECS["seer"].load(str(tmp_path))
    network = build(SPECS["seer"])[0].module.network
    files = [tmp_path / name for name in ("19.pth", "mae_pretrain_vit_base.pth", "ViT-B-32.pt")]
    for file, payload in zip(files, seer_checkpoints(network), strict=True):
        torch.save(payload, file)
    policy = seer.load(str(tmp_path))
    load_seer_checkpoint(network, files[0], mae=files[1], clip=files[2])
    loaded = policy[0].module.network.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())


def released(kind, folder, convert=lambda tensor: tensor):
    """The authors' files, with entries that a policy does not have; what ``load`` takes."""
    network = build(SPECS[kind])[0].module.network
    folder.mkdir()
    if kind == "gr_mg":
        payload = gr_mg_checkpoint(network)
        weights = payload["state_dict"]
        weights["model.text_encoder.visual.proj"] = torch.ones(2)
        source = folder / "gr_mg.ckpt"
        files = {source: payload}
    else:
        payload, *towers = seer_checkpoints(network)
        weights = payload["model_state_dict"]
        weights["module.action_projector.bias"] = torch.ones(2)
        position = weights["module.transformer_backbone_position_embedding"]
        weights["module.transformer_backbone_position_embedding"] = position.repeat(1, 2, 1, 1)
        names = ("19.pth", "mae_pretrain_vit_base.pth", "ViT-B-32.pt")
        files = dict(zip((folder / name for name in names), (payload, *towers), strict=True))
        source = folder
    weights.update({name: convert(value) for name, value in weights.items()})
    for file, held in files.items():
        torch.save(held, file)
    return str(source)


def tuned(spec, source):
    """A loaded policy, every trainable number changed."""
    policy = spec.load(source)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return policy


def entries(folder):
    """Name and bytes of all that the authors' files in a folder hold."""
    held = {}

    def add(name, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name} {key}", inner)
        else:
            held[name] = value if not torch.is_tensor(value) else value.numpy().tobytes()

    for file in folder.glob("*.[cp]*t*"):
        add(file.name, torch.load(file))
    return held


@pytest.mark.parametrize("kind", SPECS)
def test_an_exported_policy_is_the_authors_file_with_its_weights(kind, tmp_path, rftf):
    spec = replace(SPECS[kind], files={"vocab.json": b"{}"})
    source = released(kind, tmp_path / "released")
    policy = tuned(spec, source)
    file, exported = tmp_path / "policy.safetensors", tmp_path / "exported"
    save_policy(policy, spec, file)
    words = [f"policy={kind}", f"policy.path={file}", f"policy.pretrained={source}"]
    rftf("export", *words, f"output={exported}")
    again = spec.load(str(exported / "gr_mg.ckpt" if kind == "gr_mg" else exported))
    here, there = policy[0].state_dict(), again[0].state_dict()
    assert all(torch.equal(value, there[name]) for name, value in here.items())
    before, after = entries(tmp_path / "released"), entries(exported)
    changed = {name for name in before if before[name] != after[name]}
    trained = sum(p.requires_grad for p in policy[0].parameters())
    assert before.keys() == after.keys()
    assert 0.8 * trained < len(changed) <= trained, "three of ours may be one of theirs"


def refused(tmp_path, kind, policy, source):
    spec = replace(SPECS[kind], files={"vocab.json": b"{}"})
    with pytest.raises(ValueError) as error:
        export_policy(policy, spec, tmp_path / "exported", source=source)
    assert not (tmp_path / "exported").exists()
    return str(error.value)


def test_exports_that_are_refused(spec, tmp_path):
    kind = spec.kind
    spec = replace(spec, files={"vocab.json": b"{}"})
    source = released(kind, tmp_path / "released")
    policy = tuned(spec, source)
    assert refused(tmp_path, kind, policy, None) == (
        f"a policy of the kind '{kind}' goes back into its authors' files, of which it has not "
        "every part: name what it was loaded from (in the recipes policy.pretrained=<file or "
        "folder>)."
    )
    half = released(kind, tmp_path / "half", lambda tensor: tensor.half())
    message = (
        f"the format of {re.escape(half)} cannot hold this policy bit for bit: [0-9]+ of its "
        "tensors come back otherwise, the first is module.network.[a-z_.]+. Its frozen encoders "
        "have to be those of these files, whose numbers must not be less precise than the policy's."
    )
    assert re.fullmatch(message, refused(tmp_path, kind, policy, half))
    if kind == "seer":
        with torch.no_grad():
            policy[0].module.network.vision_encoder.cls_token.add_(1)
        message = "first is module.network.vision_encoder.cls_token."
        assert message in refused(tmp_path, kind, policy, source)
