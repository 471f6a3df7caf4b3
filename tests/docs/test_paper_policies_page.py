"""The page on GR-MG and Seer runs, on tiny networks and a stand-in of CALVIN."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from _arm_env import ArmEnv
from _tiny_vlas import SMALL_GR_MG, SMALL_SEER, gr_mg_checkpoint, seer_checkpoints

import rftf_torchrl
from rftf_torchrl import GRMG, GRMGSpec, Seer

ROOT = Path(__file__).parents[2]


def calvin(task, *, image_size, wrist_size, chunk_size, write_text):
    env = ArmEnv(chunk=chunk_size, size=image_size // 5, horizon=9)
    env.simulator = FakeSimulator()
    return env


class FakeSimulator:
    def reset(self, robot_obs, scene_obs):
        pass


def tokenizer(folder, size):
    names = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    names += [f"<{i}>" for i in range(size - 2 - len(names))] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(
        json.dumps({name: i for i, name in enumerate(names)}), encoding="utf-8"
    )
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """The files that the page names, and the policies' sizes to fit."""
    monkeypatch.chdir(tmp_path)
    text = replace(SMALL_GR_MG.text, context=40)
    gr_mg_config, seer_config = replace(SMALL_GR_MG, text=text), replace(SMALL_SEER, text=text)
    monkeypatch.setattr(rftf_torchrl, "GRMGSpec", partial(GRMGSpec, gr_mg_config))
    monkeypatch.setattr(rftf_torchrl, "SeerConfig", lambda: seer_config)
    network = Seer(seer_config)
    torch.save(gr_mg_checkpoint(GRMG(gr_mg_config)), "epoch=47-step=83712.ckpt")
    trained, image, _ = seer_checkpoints(network)
    torch.save(trained, "19.pth")
    torch.save(image, "mae_pretrain_vit_base.pth")
    network.clip_model.model.save_pretrained("clip-vit-base-patch32")
    tokenizer(tmp_path / "clip-vit-base-patch32", text.vocab_size)
    monkeypatch.setattr(rftf_torchrl, "CalvinEnv", calvin)
    small = {"workers": 0, "chains": 2, "steps_per_subtask": 4}
    real = rftf_torchrl.evaluate_chains
    monkeypatch.setattr(rftf_torchrl, "evaluate_chains", lambda p, **k: real(p, **{**k, **small}))


def test_page(downloads):
    blocks = re.findall(
        r"```python\n(.*?)```",
        (ROOT / "docs/how-to/gr-mg-and-seer.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    names = {"__name__": "__main__"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"gr-mg-and-seer.md, block {number}", "exec"), names)
    assert names["data"]["vla_action", "chunk"].shape == (3, 1, 7)
    assert names["report"].results[0].steps == (4,)
    for key in names["history"].out_keys:
        assert torch.equal(names["minibatch"][key], names["data"][names["rows"]][key])
    scored = names["scored"]
    change = scored["next", "temporal_value"] - scored["temporal_value"]
    assert float(change.abs().min()) > 0
    assert float(names["losses"]["kl_reference"]) == pytest.approx(0.0, abs=1e-6)
    env = rftf_torchrl.CalvinEnv("t", image_size=200, wrist_size=84, chunk_size=1, write_text=True)
    transformed = names["TransformedEnv"](env, names["seer_spec"].observation_transform())
    assert transformed.rollout(3, names["seer"])["vla_action", "chunk"].shape == (3, 1, 7)
