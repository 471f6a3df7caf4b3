"""Images of LIBERO: equal to its own at the moments at which they are drawn, or near."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from direct_libero import TASKS, actions, direct_env, direct_start
from tensordict import TensorDict

pytestmark = [pytest.mark.libero, pytest.mark.slow]

SIZE, CHUNK = 64, 4


def seen(env):
    """The images [6, h, w] of both cameras at the start of an episode and after two chunks."""
    data = env.reset(TensorDict({"episode_seed": torch.tensor([3])}))
    found = [data]
    for chunk in torch.from_numpy(actions(2 * CHUNK)).unflatten(0, (2, CHUNK)):
        found.append(env.step(found[-1].set(("vla_action", "chunk"), chunk))["next"])
    cameras = (("observation", "image"), ("observation", "wrist_image"))
    return [torch.cat([data[key] for key in cameras]).numpy() for data in found]


@pytest.mark.parametrize("suite", ["libero_object", "libero_spatial"])
def test_exact_pictures_are_liberos_own_rotated_by_180_degrees(make_env, pictures, suite):
    arguments = {"image_size": SIZE, "wrist": True, "chunk_size": CHUNK}
    ours = seen(make_env(TASKS[suite], suite, pictures="exact", **arguments))
    own = direct_env(suite, TASKS[suite], SIZE)
    observed = [direct_start(own, 2 * 3)]
    for number, action in enumerate(actions(2 * CHUNK), start=1):
        after, *_ = own.step(action)
        if number % CHUNK == 0:
            observed.append(after)
    own.close()
    for picture, after in zip(ours, observed, strict=True):
        both = [after[f"{camera}_image"] for camera in ("agentview", "robot0_eye_in_hand")]
        rotated = np.concatenate([raw[::-1, ::-1].transpose(2, 0, 1) for raw in both])
        assert np.array_equal(picture, rotated)


def test_cheaper_pictures_are_near_and_leave_the_physics_alone(make_env, pictures):
    found, positions = {}, {}
    for way in ("exact", "plain", "fast"):
        env = make_env(
            TASKS["libero_object"],
            "libero_object",
            image_size=SIZE,
            wrist=True,
            chunk_size=CHUNK,
            pictures=way,
        )
        found[way] = np.stack(seen(env)).astype(float)
        positions[way] = env.simulator.data.qpos.copy()
    assert np.array_equal(positions["exact"], positions["fast"])
    apart = {way: np.abs(found[way] - found["exact"]).mean() for way in ("plain", "fast")}
    assert 0.0 < apart["plain"] < apart["fast"] < 8.0


def test_the_same_picture_at_any_size(make_env, pictures):
    env = make_env(image_size=32)
    small = env.reset()["observation", "image"]
    assert (env.picture(32) == small).all()
    large = torch.nn.functional.avg_pool2d(env.picture(96).float(), 3)
    assert (large - small.float()).abs().mean() < 10.0
