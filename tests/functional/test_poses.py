import math

import pytest
import torch

from rftf_torchrl import euler_to_matrix, matrix_to_euler, tool_to_world, world_to_tool

Rotation = pytest.importorskip("scipy.spatial.transform").Rotation


def angles(number=50):
    generator = torch.Generator().manual_seed(0)
    full = (2 * torch.rand(number, 3, generator=generator, dtype=torch.float64) - 1) * math.pi
    full[:, 1] /= 2.01
    return full


def test_the_convention_is_scipys_extrinsic_xyz():
    expected = Rotation.from_euler("xyz", angles().numpy()).as_matrix()
    torch.testing.assert_close(euler_to_matrix(angles()), torch.from_numpy(expected))
    torch.testing.assert_close(matrix_to_euler(euler_to_matrix(angles())), angles())


def test_gimbal_lock_keeps_the_rotation():
    matrix = euler_to_matrix(torch.tensor([0.4, math.pi / 2, -0.9], dtype=torch.float64))
    found = matrix_to_euler(matrix)
    assert found[2] == 0
    torch.testing.assert_close(euler_to_matrix(found), matrix)


def chunks(number=50, length=4):
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(number, length, 7, generator=generator, dtype=torch.float64) - 1


def test_first_action_as_the_authors_wrapper_computes_it():
    """Their loop, transcribed: the pose that the action leads to, minus the observed one."""
    position = torch.tensor([0.1, -0.2, 0.5]).double()
    for euler, action in zip(angles(), chunks()[:, 0], strict=True):
        rotation = Rotation.from_euler("xyz", euler.numpy()).as_matrix()
        turn = Rotation.from_euler("xyz", (action[3:6] / 20).numpy()).as_matrix()
        following = Rotation.from_matrix(rotation @ turn).as_euler("xyz")
        shift = position + torch.from_numpy(rotation) @ action[:3] / 50 - position
        expected = torch.cat((shift * 50, (torch.from_numpy(following) - euler) * 20, action[6:]))
        found = tool_to_world(action[None], euler, wrap=False)[0]
        torch.testing.assert_close(found, expected)


def test_wrapped_turns_are_the_same_rotation_and_small():
    euler = torch.tensor([math.pi - 0.01, 0.0, 0.0])
    chunk = torch.tensor([[0.0, 0, 0, 1, 0, 0, 1]])
    raw, wrapped = (tool_to_world(chunk, euler, wrap=wrap)[0, 3:6] / 20 for wrap in (False, True))
    torch.testing.assert_close(raw[0], torch.tensor(0.05 - 2 * math.pi).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(wrapped[0], torch.tensor(0.05).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(euler_to_matrix(euler + raw), euler_to_matrix(euler + wrapped))


def test_later_actions_start_where_earlier_ones_lead():
    chunk, euler = chunks(), angles()
    world = tool_to_world(chunk, euler)
    for k in range(1, chunk.shape[1]):
        euler = euler + world[:, k - 1, 3:6] / 20
        torch.testing.assert_close(tool_to_world(chunk[:, k:], euler)[:, 0], world[:, k])


@pytest.mark.parametrize("wrap", [True, False])
def test_there_and_back(wrap):
    chunk = chunks()
    world = tool_to_world(chunk, angles(), wrap=wrap)
    torch.testing.assert_close(world_to_tool(world, angles()), chunk)


def test_level_gripper_changes_nothing():
    chunk = chunks(3, 1)
    chunk[..., 3:6] = 0
    torch.testing.assert_close(tool_to_world(chunk, torch.zeros(3, 3)), chunk)
