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
    load_gr_mg_checkpoint,
    load_seer_checkpoint,
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
