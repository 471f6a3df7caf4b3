"""Poses of a gripper, and actions in its own frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def euler_to_matrix(euler: Tensor) -> Tensor:
    r"""Rotation matrices of angles about the fixed axes x, y and z.

    .. math::
        R = R_z(\gamma) R_y(\beta) R_x(\alpha)

    Args:
        euler: angles (alpha, beta, gamma) in radians, float [*B, 3].

    Returns:
        float [*B, 3, 3].

    Examples:
        >>> euler_to_matrix(torch.tensor([0.0, 0.0, math.pi / 2])).round().abs()
        tensor([[0., 1., 0.],
                [1., 0., 0.],
                [0., 0., 1.]])
    """
    (sa, sb, sc), (ca, cb, cc) = euler.sin().unbind(-1), euler.cos().unbind(-1)
    rows = [
        [cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa],
        [sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa],
        [-sb, cb * sa, cb * ca],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_to_euler(matrix: Tensor) -> Tensor:
    """The angles that :func:`euler_to_matrix` takes, the second within a quarter turn of zero.

    At a second angle of a quarter turn the first and third are not determined; the third is then
    set to zero.

    Args:
        matrix: rotations, float [*B, 3, 3].

    Returns:
        float [*B, 3].

    Examples:
        >>> angles = torch.tensor([0.3, -1.2, 2.9])
        >>> torch.allclose(matrix_to_euler(euler_to_matrix(angles)), angles)
        True
    """
    cosine = torch.hypot(matrix[..., 0, 0], matrix[..., 1, 0])
    locked = cosine < 1e-6
    first = torch.where(
        locked,
        torch.atan2(-matrix[..., 1, 2], matrix[..., 1, 1]),
        torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2]),
    )
    third = torch.where(locked, 0.0, torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0]))
    return torch.stack((first, torch.atan2(-matrix[..., 2, 0], cosine), third), dim=-1)


def tool_to_world(
    chunk: Tensor,
    euler: Tensor,
    *,
    position_scale: float = 50.0,
    rotation_scale: float = 20.0,
    wrap: bool = True,
) -> Tensor:
    r"""Turns pose changes in the gripper's frame into changes in the world's.

    .. math::
        x_{k+1} = x_k + R_k \, \delta x_k, \qquad R_{k+1} = R_k R(\delta r_k)

    The first action starts at the observed pose, each other one where the one before it leads to.

    Args:
        chunk: scaled changes of position and angles, then the gripper: float [*B, H, 7].
        euler: observed angles, see :func:`euler_to_matrix`, float [*B, 3].
        position_scale: what changes of position are multiplied by, on both sides.
        rotation_scale: what changes of angles are multiplied by, on both sides.
        wrap: whether changes of angles are brought into half a turn. Either way they lead to the
            same rotation, but an environment that clips actions needs it.

    Returns:
        float64 [*B, H, 7], the gripper unchanged.

    Examples:
        >>> quarter = torch.tensor([0.0, 0.0, math.pi / 2])
        >>> ahead = torch.tensor([[1.0, 0, 0, 0, 0, 0, 1]])
        >>> tool_to_world(ahead, quarter).round().abs()
        tensor([[0., 1., 0., 0., 0., 0., 1.]], dtype=torch.float64)
    """
    move = chunk[..., :3].double() / position_scale
    turn = euler_to_matrix(chunk[..., 3:6].double() / rotation_scale)
    angles = euler.double()
    rotation = euler_to_matrix(angles)
    actions = []
    for k in range(chunk.shape[-2]):
        shift = (rotation @ move[..., k, :, None]).squeeze(-1)
        rotation = rotation @ turn[..., k, :, :]
        following = matrix_to_euler(rotation)
        change = following - angles
        if wrap:
            change = _wrapped(change)
        angles = following
        actions.append(torch.cat((shift * position_scale, change * rotation_scale), dim=-1))
    return torch.cat((torch.stack(actions, dim=-2), chunk[..., 6:].double()), dim=-1)


def world_to_tool(
    chunk: Tensor,
    euler: Tensor,
    *,
    position_scale: float = 50.0,
    rotation_scale: float = 20.0,
) -> Tensor:
    """The inverse of :func:`tool_to_world`, for demonstrations whose actions are the world's.

    Args:
        chunk: scaled changes of position and angles, then the gripper: float [*B, H, 7].
        euler: observed angles, float [*B, 3].
        position_scale: what changes of position are multiplied by, on both sides.
        rotation_scale: what changes of angles are multiplied by, on both sides.

    Returns:
        float64 [*B, H, 7], the gripper unchanged.

    Examples:
        >>> quarter = torch.tensor([0.0, 0.0, math.pi / 2])
        >>> left = torch.tensor([[0.0, 1, 0, 0, 0, 0, 1]])
        >>> world_to_tool(left, quarter).round().abs()
        tensor([[1., 0., 0., 0., 0., 0., 1.]], dtype=torch.float64)
    """
    shift = chunk[..., :3].double() / position_scale
    angles = euler.double()[..., None, :] + (chunk[..., 3:6].double() / rotation_scale).cumsum(-2)
    after = euler_to_matrix(angles)
    before = torch.cat(
        (euler_to_matrix(euler.double())[..., None, :, :], after[..., :-1, :, :]), -3
    )
    move = (before.mT @ shift[..., None]).squeeze(-1)
    turn = matrix_to_euler(before.mT @ after)
    scaled = torch.cat((move * position_scale, turn * rotation_scale), dim=-1)
    return torch.cat((scaled, chunk[..., 6:].double()), dim=-1)


def _wrapped(angle: Tensor) -> Tensor:
    return angle - 2 * math.pi * torch.round(angle / (2 * math.pi))
