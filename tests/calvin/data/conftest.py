import shutil

import numpy as np
import pytest
from synthetic_calvin import write_synthetic_calvin


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """Two episodes of 36 frames, from frame 64, with images and two spans each."""
    return write_synthetic_calvin(tmp_path_factory.mktemp("calvin") / "data", episodes=2)


@pytest.fixture
def calvin_root(pristine, tmp_path):
    """A copy of the data without digests, to be broken."""
    shutil.copytree(pristine, tmp_path / "data", ignore=shutil.ignore_patterns("digests.json"))
    return tmp_path / "data"


@pytest.fixture
def change_frame(calvin_root):
    """Change entries of a frame of ``calvin_root``; None removes an entry."""

    def change(number, **entries):
        file = calvin_root / "training" / f"episode_{number:07d}.npz"
        with np.load(file) as opened:
            frame = dict(opened)
        for key, value in entries.items():
            del frame[key]
            if value is not None:
                frame[key] = value
        np.savez_compressed(file, **frame)

    return change
