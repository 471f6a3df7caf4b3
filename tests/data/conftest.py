import pytest
import torch
from tensordict import TensorDict

from rftf_torchrl import load_demonstrations, write_synthetic_demonstrations

TASKS = [
    {"id": 0, "name": "reach-v3", "instruction": "reach the red dot"},
    {"id": 7, "name": "push-v3", "instruction": "push the puck"},
]


def make_episode(length=5, *, action_dim=2, state_dim=3, size=(8, 6), tokens=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    action = torch.randn(length, action_dim, generator=generator).tanh()
    action[-1:] = 0
    image = torch.randint(0, 256, (length, 3, *size), generator=generator).to(torch.uint8)
    return TensorDict(
        {
            "observation": {
                "image": image,
                "state": torch.randn(length, state_dim, generator=generator),
            },
            "instruction": {
                "tokens": torch.randint(1, 99, (length, tokens), generator=generator),
                "mask": torch.ones(length, tokens, dtype=torch.bool),
            },
            "action": action,
        },
        batch_size=[length],
    )


@pytest.fixture
def tasks():
    return TASKS


@pytest.fixture
def episode():
    return make_episode


@pytest.fixture
def root(tmp_path):
    """Two tasks with three episodes each, of 6, 7 and 6 frames; without digests, to be changed."""
    root = write_synthetic_demonstrations(tmp_path / "demos", episodes_per_task=3)
    (root / "digests.json").unlink()
    return root


@pytest.fixture
def state_only(tmp_path):
    """The demonstrations of ``root`` without images."""
    return load_demonstrations(
        write_synthetic_demonstrations(tmp_path / "states", episodes_per_task=3, image_size=None)
    )


@pytest.fixture
def demonstrations(root):
    return load_demonstrations(root)
