"""GR-MG and Seer as policies: from raw observations to actions, in rollouts and in the loss."""

import json
import re
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.envs import ParallelEnv, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import BCLoss

pytest.importorskip("transformers")
from _arm_env import ArmEnv
from _tiny_vlas import SMALL_GR_MG, SMALL_SEER, gr_mg_checkpoint, seer_checkpoints

from rftf_torchrl import keys
from rftf_torchrl.envs import Episode, EpisodeCollector, PolicyInputFactory
from rftf_torchrl.evaluation.chain_stages import PolicyStage
from rftf_torchrl.modules import add_lora, values_of_states
from rftf_torchrl.modules._vla_blocks.pictures import imagenet_picture
from rftf_torchrl.modules.gr_mg import (
    GRMG,
    GRMGSpec,
    LastFrames,
    gr_mg_value_model,
    load_gr_mg_checkpoint,
)
from rftf_torchrl.modules.seer import Seer, SeerConfig, SeerSpec, load_seer_checkpoint
from rftf_torchrl.objectives import RFTFPPOLoss

Rotation = pytest.importorskip("scipy.spatial.transform").Rotation
TEXT = replace(SMALL_GR_MG.text, context=12)
SPECS = {
    "gr_mg": GRMGSpec(replace(SMALL_GR_MG, text=TEXT), chunk_size=2),
    "seer": SeerSpec(replace(SMALL_SEER, text=TEXT), chunk_size=2),
}


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


def build(spec, seed=0):
    torch.manual_seed(seed)
    policy = spec.build()
    for parameter in policy.parameters():  # fresh queries of Seer are zero
        nn.init.normal_(parameter.data, std=0.15) if parameter.ndim > 1 else None
    return policy


def make_env(spec, **arguments):
    arguments = {"chunk": spec.chunk_size, "wrist": spec.wrist, **arguments}
    return TransformedEnv(ArmEnv(**arguments), spec.observation_transform())


def rollout(spec, policy, steps=5, mode=ExplorationType.RANDOM, **arguments):
    with torch.no_grad(), set_exploration_type(mode):
        data = make_env(spec, **arguments).rollout(steps, policy)
    return data.exclude("language_instruction", ("next", "language_instruction"))


def test_shapes(spec):
    policy = build(spec)
    data = rollout(spec, policy)
    assert data[keys.CHUNK].shape == (5, 2, 7)
    assert data[keys.CHUNK].dtype == data[keys.LOG_PROB].dtype == torch.float32
    assert data[keys.LOG_PROB].shape == (5,)
    assert set(data[keys.CHUNK][..., -1].unique().tolist()) <= {-1.0, 1.0}


def test_batched_equals_one_by_one(spec):
    policy = build(spec)
    data = rollout(spec, policy).select(*spec.in_keys)
    together = policy.get_dist(data.reshape(5, 1).expand(5, 2))
    for row in range(5):
        alone = policy.get_dist(data[row])
        torch.testing.assert_close(together.mode[row, 1], alone.mode, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            together.gripper.logits[row, 0], alone.gripper.logits, atol=1e-5, rtol=1e-5
        )


def test_what_it_sees_matters(spec):
    policy = build(spec)
    data = rollout(spec, policy).select(*spec.in_keys)
    before = policy.get_dist(data.clone()).arm.loc
    for key in spec.in_keys:
        changed = data.clone()
        if data[key].dtype == torch.bool:
            changed[key][:, 1:] = False
        elif "token" in key[-1]:
            changed[key][:, 1] += 1
        else:
            changed[key] = data[key].flip(0) + 1
        assert not torch.allclose(policy.get_dist(changed).arm.loc, before, atol=1e-7), key


def test_the_ratio_is_one_at_first_and_gradients_reach_what_is_trainable(spec):
    policy = build(spec)
    data = rollout(spec, policy)
    data[keys.EXECUTED] = torch.tensor([[True, False]] * 5)
    data[keys.LOG_PROB] = policy.get_dist(data.clone()).log_prob(data[keys.CHUNK]).detach()
    data["advantage"] = torch.linspace(-1, 1, 5)[:, None]
    loss = RFTFPPOLoss(policy, reference_actor=policy)
    losses = loss(loss.add_reference(data))
    # Attention has one kernel with gradients and one without, which round differently.
    assert float(losses["max_ratio"]) == pytest.approx(1.0, abs=1e-5)
    assert float(losses["kl_reference"]) == pytest.approx(0.0, abs=1e-6)
    (losses["loss_objective"] + losses["loss_entropy"]).backward()
    trained = {n for n, p in loss.named_parameters() if p.requires_grad}
    reached = {n for n, p in loss.named_parameters() if p.grad is not None}
    assert reached == trained
    assert not any("vision_encoder" in name or "model_mae" in name for name in trained)
    assert any("perceiver_resampler" in name for name in trained)


def test_bf16_network(spec):
    policy = build(spec)
    data = rollout(spec, policy)
    chunk = data[keys.CHUNK]
    exact = policy.get_dist(data.clone()).log_prob(chunk)
    half = policy.bfloat16()
    first, again = (half.get_dist(data.clone()).log_prob(chunk) for _ in range(2))
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    torch.testing.assert_close(first, exact, rtol=0.05, atol=0.5)


BF16_RATIO = {"gr_mg": 0.2, "seer": 0.05}


def test_the_ratio_in_bf16_is_one_within_a_bound(spec):
    """Acting in float32, learning in bfloat16: what is apart is the rounding of the network."""
    policy = build(spec)
    data = rollout(spec, policy)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        log_prob = policy.get_dist(data.clone()).log_prob(data[keys.CHUNK])
    assert log_prob.dtype == torch.float32
    furthest = (log_prob - data[keys.LOG_PROB]).exp().sub(1).abs().max()
    assert 0 < float(furthest) < BF16_RATIO[spec.kind]


def test_adapters_off_is_the_policy_before_them(spec):
    """Bit for bit, after the adapters have moved."""
    peft = pytest.importorskip("peft")
    original = build(spec)
    data = rollout(spec, original)
    data["advantage"] = torch.linspace(-1, 1, 5)[:, None]
    expected = RFTFPPOLoss(original, reference_actor=original).add_reference(data.clone())
    layers = peft.LoraConfig(r=2, target_modules=["to_q", "to_kv"])
    adapted = add_lora(deepcopy(original), layers, part="")
    loss = RFTFPPOLoss(adapted, reference_actor="adapters_off")
    with torch.no_grad():
        for parameter in loss.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    found = loss.add_reference(data.clone())
    for key in expected["reference"].keys(True, True):
        assert torch.equal(found["reference", key], expected["reference", key]), key
    assert float(loss(found)["kl_reference"]) > 1e-6


def test_save_and_load(spec, tmp_path):
    files = {"vocab.json": b"{}"}
    described = json.loads(json.dumps(replace(spec, files=files).to_dict()))
    assert type(spec).from_dict({**described, "files": files}) == replace(spec, files=files)
    same = type(spec).from_dict(described)
    assert same == spec
    assert type(spec).from_dict({"chunk_size": 2}) == type(spec)(chunk_size=2)
    assert type(spec).from_dict({"robot": "metaworld"}).action_dim == 4
    policy = build(spec)
    data = rollout(spec, policy)
    other = build(same, seed=1)
    other.load_state_dict(policy.state_dict())
    expected = policy.get_dist(data.clone()).arm.loc
    assert torch.equal(other.get_dist(data.clone()).arm.loc, expected)


def test_parallel_environments(spec):
    policy = build(spec)
    mode = ExplorationType.DETERMINISTIC
    alone = rollout(spec, policy, mode=mode)
    env = ParallelEnv(2, partial(make_env, spec), mp_start_method="fork")
    with torch.no_grad(), set_exploration_type(mode):
        together = env.rollout(5, policy)
    env.close()
    for row in range(2):
        torch.testing.assert_close(together[row][keys.CHUNK], alone[keys.CHUNK])


def test_worker_processes(spec):
    """GR-MG has more weights than a process can be given file descriptors."""
    policy = build(spec)
    mode = ExplorationType.DETERMINISTIC
    alone = rollout(spec, policy, mode=mode)
    make = PolicyInputFactory(make_arm, spec.observation_transform())
    with EpisodeCollector(make, policy, workers=1) as collector:
        data = collector.collect([Episode("lift", 0), Episode("lift", 2)], deterministic=True)
    torch.testing.assert_close(data[keys.CHUNK][:5], alone[keys.CHUNK], atol=1e-5, rtol=1e-5)
    assert data["vla_inputs", "valid"].sum(-1).tolist() == [1, 2, 3, 3, 3] * 2
    assert all(isinstance(value, torch.Tensor) for value in data.values(True, True))
    assert "language_instruction" not in data.keys()  # noqa: SIM118


def make_arm(episode):
    return ArmEnv(chunk=2)


def test_a_subtask_of_a_chain_starts_anew(spec):
    env = make_env(spec, horizon=100)
    seen = []

    class Spy(nn.Module):
        in_keys, out_keys = spec.in_keys, [keys.CHUNK]

        def __call__(self, tensordict):
            seen.append(tensordict.clone())
            return tensordict.set(keys.CHUNK, torch.zeros(1, 2, 7))

    stage = PolicyStage(env, Spy(), 8, True, {"open": ["open it"], "push": ["push it well"]})
    env.base_env.simulator = None
    for task in ("open", "push"):
        assert stage.do(task, lambda: None) == (False, 8)
    valid = torch.cat([data["vla_inputs", "valid"] for data in seen]).sum(-1)
    assert valid.tolist() == [1, 2, 3, 3] * 2
    assert not torch.equal(
        seen[0]["vla_inputs", "clip_tokens"], seen[4]["vla_inputs", "clip_tokens"]
    )


def robot_obs(state):
    angles = np.arctan2(state[3:6], state[6:9])
    return state[:3].astype(float), angles.astype(float), float(state[10])


def test_gr_mg_acts_as_its_authors_wrapper(monkeypatch):
    """Their ``step``, transcribed for one environment, with its buffers and its formulas."""
    spec = replace(SPECS["gr_mg"], chunk_size=1, wrap_rotation=False)
    policy = build(spec)
    network = policy[0].module.network
    env = make_env(spec)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        data = env.rollout(5, policy)
    images, hands, states = [], [], []
    for t in range(5):
        images.append(imagenet_picture(data[keys.IMAGE][t, None], 32))
        hands.append(imagenet_picture(data[keys.WRIST_IMAGE][t, None], 32))
        states.append(robot_obs(data[keys.STATE][t].numpy()))
        images, hands, states = images[-3:], hands[-3:], states[-3:]
        count = len(images)
        rgb, hand = torch.zeros(2, 1, 3, 3, 32, 32)
        rgb[0, :count], hand[0, :count] = torch.cat(images), torch.cat(hands)
        arm, gripper = torch.zeros(1, 3, 6), torch.zeros(1, 3).long()
        first = Rotation.from_euler("xyz", states[0][1]).as_matrix()
        for i, (position, angles, opened) in enumerate(states):
            rotation = Rotation.from_euler("xyz", angles).as_matrix()
            arm[0, i, :3] = torch.from_numpy(first.T @ (position - states[0][0]))
            turned = Rotation.from_matrix(first.T @ rotation).as_euler("xyz")
            arm[0, i, 3:] = torch.from_numpy(turned)
            gripper[0, i] = int(((1 if opened > 0 else -1) + 1) / 2)
        with torch.no_grad():
            out = network(
                image=rgb,
                wrist_image=hand,
                goal_image=imagenet_picture(data["vla_inputs", "goal_image"][t, None], 32),
                arm=arm,
                gripper=gripper,
                valid=torch.arange(3)[None] < count,
                text=network.text_encoder(data["vla_inputs", "clip_tokens"][t, None]),
            )
        act = out["arm"][0, count - 1, 0].double().numpy()
        opened = 1.0 if out["gripper"][0, count - 1, 0].sigmoid() > 0.5 else -1.0
        position, angles, _ = states[-1]
        rotation = Rotation.from_euler("xyz", angles).as_matrix()
        turn = Rotation.from_euler("xyz", act[3:6] / 20).as_matrix()
        following = Rotation.from_matrix(rotation @ turn).as_euler("xyz")
        expected = np.concatenate((rotation @ act[:3], (following - angles) * 20, [opened]))
        found = env.base_env.commands[t][0]
        torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=1e-4, rtol=1e-4)
        stored = torch.from_numpy(np.append(act, opened)).float()
        torch.testing.assert_close(data[keys.CHUNK][t, 0], stored, atol=1e-4, rtol=1e-4)
        # The authors read the progress at the window's last place, be it filled or not.
        torch.testing.assert_close(data["progress"][t, 0], out["progress"][0, 2])


def test_seer_acts_as_its_authors_wrapper():
    """The tail of a short window repeats the newest frame there, and is zero here."""
    spec = replace(SPECS["seer"], chunk_size=1)
    policy = build(spec)
    actor = policy[0].module
    env = make_env(spec)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        data = env.rollout(5, policy)
    for t in range(5):
        first = max(0, t - 2)
        rows = [*range(first, t + 1), *[t] * (2 - (t - first))]
        poses = [robot_obs(data[keys.STATE][row].numpy()) for row in rows]
        with torch.no_grad():
            out = actor.network(
                image=actor._picture(data[keys.IMAGE][rows])[None],
                wrist_image=actor._picture(data[keys.WRIST_IMAGE][rows])[None],
                arm=torch.tensor(np.array([[np.concatenate(pose[:2]) for pose in poses]])).float(),
                gripper=torch.tensor([[0 if pose[2] <= 0 else 1 for pose in poses]]),
                text=actor.network.clip_model(data["vla_inputs", "clip_tokens"][t, None]),
            )
        place = min(t, 2)
        opened = 1.0 if out.gripper[0, place, 0].sigmoid() > 0.5 else -1.0
        expected = torch.cat((out.arm[0, place, 0], torch.tensor([opened])))
        torch.testing.assert_close(data[keys.CHUNK][t, 0], expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(env.base_env.commands[t][0], data[keys.CHUNK][t, 0])


def test_goal_images_are_renewed_with_the_progress():
    asked = []

    def paint(observation, percent):
        asked.append((int(observation[keys.IMAGE][0, 0, 0]), percent))
        return torch.full_like(observation[keys.IMAGE], 50 + len(asked))

    spec = replace(SPECS["gr_mg"], goal_every=2)
    env = TransformedEnv(ArmEnv(chunk=2), spec.observation_transform(goal_images=paint))

    def act(tensordict):
        tensordict["progress"] = torch.tensor([0.1 * (1 + env.base_env.count) + 0.05])
        return tensordict.set(keys.CHUNK, torch.zeros(2, 7))

    data = env.rollout(5, act)
    assert data["vla_inputs", "goal_image"][:, 0, 0, 0].tolist() == [51, 51, 52, 52, 53]
    assert asked == [(0, 0), (2, 20), (4, 40)]


def test_goal_images_that_do_not_fit():
    goals = LastFrames({3: torch.zeros(3, 8, 8, dtype=torch.uint8)})
    env = TransformedEnv(ArmEnv(chunk=2), SPECS["gr_mg"].observation_transform(goals))
    message = (
        "the goal image provider returned torch.uint8 (3, 8, 8), expected torch.uint8 (3, 32, 32), "
        "the static picture's shape."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.reset()
    with pytest.raises(KeyError, match=r"no goal image for task 4, there are some for \[3\]"):
        goals(TensorDict(task_id=torch.tensor([4])), 0)


def test_gr_mg_progress_is_a_value_model():
    spec = SPECS["gr_mg"]
    policy = build(spec)
    data = rollout(spec, policy)
    model = gr_mg_value_model(policy, spec)
    value = model(data.clone())["temporal_value"]
    torch.testing.assert_close(value, data["progress"])
    assert value.shape == (5, 1)
    model.calibrate(data[[int(value.argmin())]], data[[int(value.argmax())]], mode="global")
    calibrated = model(data.clone())["temporal_value"]
    torch.testing.assert_close(calibrated.min(), torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(calibrated.max(), torch.tensor(1.0), atol=1e-4, rtol=0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(2)
    assert torch.equal(model(data.clone())["temporal_value"], calibrated)


def test_progress_without_the_next_histories_is_refused():
    """As collected by the recipes, whose environments drop them: V(s') would be V(s)."""
    spec = SPECS["gr_mg"]
    policy = build(spec)
    data = rollout(spec, policy)
    model = gr_mg_value_model(policy, spec)
    assert not torch.equal(*values_of_states(model, data))
    with pytest.raises(KeyError, match="missing under 'next', so that the next state would pass"):
        values_of_states(model, data.exclude(("next", "vla_inputs")))


def test_demonstrations_look_like_rollouts(spec):
    policy = build(spec)
    episodes = torch.cat([rollout(spec, policy, seed_start) for seed_start in (5, 5)])
    frame = torch.tensor([0, 3, 9, 6])
    spans = torch.tensor([[0, 5], [5, 10]])
    batch = episodes[frame].select(keys.STATE)
    world = torch.rand(4, 2, 7) - 0.5
    batch[keys.CHUNK] = world.clone()
    frames = episodes.select(keys.IMAGE, keys.WRIST_IMAGE, keys.STATE)
    found = spec.demonstration_batch(batch, frames, frame, spans, ["lift the red block"] * 4)
    for key in spec.in_keys:
        if key[-1] != "goal_image":
            assert torch.equal(found[key], episodes[frame][key]), key
    if spec.kind == "gr_mg":
        goals = found["vla_inputs", "goal_image"][:, 0, 0, 0]
        assert goals.tolist() == [4, 4, 4, 4]
        transform = spec.observation_transform()[-1]
        world_again = transform.inv(found.clone())[keys.CHUNK]
        torch.testing.assert_close(world_again, world, atol=1e-5, rtol=1e-5)
    else:
        assert torch.equal(found[keys.CHUNK], world)
    assert policy.get_dist(found).log_prob(found[keys.CHUNK]).shape == (4,)


def test_cloning_by_likelihood_learns_arm_and_gripper(spec):
    policy = build(spec)
    data = rollout(spec, policy).select(*spec.in_keys)
    before = policy.get_dist(data).mode.detach()
    target = torch.cat((0.5 * before[..., :-1], -before[:1, :, -1:].expand(5, -1, -1)), dim=-1)
    data[keys.CHUNK] = target
    loss_module = BCLoss(policy)
    loss_module.set_keys(action=keys.CHUNK)
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(25):
        loss = loss_module(data)["loss_bc"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = policy.get_dist(data).mode.detach()
    assert torch.equal(after[..., -1], target[..., -1])
    left, start = ((mode - target)[..., :-1].norm() for mode in (after, before))
    assert float(left) < 0.7 * float(start)


def test_metaworld_without_a_gripper_camera(spec):
    robot = replace(spec.config, arm_dim=3)
    spec = replace(spec, config=robot, robot="metaworld", wrist=False)
    data = rollout(spec, build(spec), state_dim=4, arm_dim=3)
    assert data[keys.CHUNK].shape == (5, 2, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"chunk_size": 9},
            "chunk_size must be from 1 to config.act_len = {act_len}, the actions that the network "
            "predicts, got 9.",
        ),
        (
            {"robot": "metaworld"},
            "an action of robot='metaworld' has 3 numbers for the arm and one for the gripper, but "
            "config.arm_dim is 6: set it to 3.",
        ),
        ({"robot": "franka"}, "robot must be one of calvin, metaworld, got 'franka'."),
    ],
)
def test_specs_that_do_not_fit(spec, changes, message):
    message = message.format(act_len=spec.config.act_len)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(spec, **changes)


def test_inputs_that_do_not_fit(spec):
    policy = build(spec)
    data = rollout(spec, policy, 2).select(*spec.in_keys)
    short = data.clone()
    short["vla_inputs", "state_history"] = data["vla_inputs", "state_history"][..., :5]
    message = (
        "('observation', 'state') of robot='calvin' must have 11, 15 or 53 numbers, got shape "
        "(2, 3, 5)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        policy(short)
    other = data.clone()
    other["vla_inputs", "clip_tokens"] = torch.ones(2, 12, dtype=torch.int64)
    with pytest.raises(ValueError, match="an instruction has no end token 63, so it was not token"):
        policy(other)
    other["vla_inputs", "clip_tokens"] = torch.full((2, 13), 63)
    with pytest.raises(ValueError, match="an instruction has 13 tokens, and CLIP's text tower ta"):
        policy(other)


def test_weights_that_are_not_finite(spec):
    policy = build(spec)
    data = rollout(spec, policy, 2).select(*spec.in_keys)
    with torch.no_grad():
        next(p for p in policy.parameters() if p.requires_grad).fill_(float("nan"))
    message = "24 of 24 means of the policy are not finite: its weights diverged, an observation is"
    with pytest.raises(FloatingPointError, match=f"^{re.escape(message)}"):
        policy(data)


def test_a_camera_that_is_off(spec):
    env = TransformedEnv(ArmEnv(chunk=2, wrist=False), spec.observation_transform())
    with pytest.raises(KeyError) as raised:
        env.reset()
    assert raised.value.args[0].startswith("('observation', 'wrist_image') is missing, so its hist")


@pytest.mark.parametrize(
    ("sentence", "count"), [("", 0), ("one two three four five six seven eight nine ten ten", 11)]
)
def test_sentences_of_a_wrong_length(spec, sentence, count):
    message = f"the instruction {sentence!r} has {count} tokens, expected 1 to 10: shorten it, or"
    with pytest.raises(ValueError, match=re.escape(message)):
        spec.observation_transform()[0].encode(sentence)


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


def test_without_transformers(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = r"needs the package transformers: pip install 'rftf-torchrl\[transformers\]'$"
    with pytest.raises(ImportError, match=message):
        spec.build()
