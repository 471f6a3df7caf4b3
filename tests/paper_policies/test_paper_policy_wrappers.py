"""GR-MG and Seer act as their authors' wrappers make them act."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

pytest.importorskip("transformers")
from _paper_policies import SPECS, build, make_env

from rftf_torchrl import keys
from rftf_torchrl.paper_policies.blocks.pictures import imagenet_picture

Rotation = pytest.importorskip("scipy.spatial.transform").Rotation


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
