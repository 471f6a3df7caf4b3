"""GR-MG and Seer as policies: from raw observations to actions."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")
from _paper_policies import build, rollout

from rftf_torchrl import keys


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


def test_demonstrations_look_like_rollouts(spec):
    policy = build(spec)
    episodes = torch.cat([rollout(spec, policy, seed_start) for seed_start in (5, 5)])
    frame = torch.tensor([0, 3, 9, 6])
    spans = torch.tensor([[0, 5], [5, 10]])
    batch = episodes[frame].select(keys.STATE)
    world = torch.rand(4, 2, 7) - 0.5
    world[..., -1] = world[..., -1].sign()
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


def test_metaworld_without_a_gripper_camera(spec):
    robot = replace(spec.config, arm_dim=3)
    spec = replace(spec, config=robot, wrist=False)
    data = rollout(spec, build(spec), state_dim=4, arm_dim=3)
    assert data[keys.CHUNK].shape == (5, 2, 4)
