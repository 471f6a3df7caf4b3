"""The choice of an OpenGL backend, and what is said when there is none."""

from __future__ import annotations

import ctypes.util
import importlib
import re

import pytest

from rftf_torchrl import NoOpenGLBackendError, select_gl_backend
from rftf_torchrl.envs.gl import create_gl_context

HELP = (
    "On Debian or Ubuntu: 'apt-get install libegl1 libgl1 libgl1-mesa-dri' (EGL) or 'apt-get "
    "install libosmesa6' (OSMesa, with MUJOCO_GL=osmesa); on a GPU server the driver's libEGL is "
    "enough. To work without images, from the state, use image_size=None, in the recipes "
    "env.image_size=null."
)
MISSING = f"no off-screen OpenGL backend: neither libEGL nor libOSMesa was found. {HELP}"


@pytest.fixture
def installed(monkeypatch):
    """Pretend that exactly these libraries are installed."""
    libraries = []
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(
        ctypes.util, "find_library", lambda name: f"lib{name}.so" if name in libraries else None
    )
    return libraries


@pytest.mark.parametrize(
    ("libraries", "chosen"),
    [(["EGL"], "egl"), (["OSMesa"], "osmesa"), (["OSMesa", "EGL"], "egl")],
)
def test_takes_what_is_installed(installed, libraries, chosen):
    installed += libraries
    assert select_gl_backend() == chosen


@pytest.mark.parametrize(
    ("variable", "chosen"), [("osmesa", "osmesa"), ("EGL", "egl"), ("glfw", "egl"), ("", "egl")]
)
def test_mujocos_own_variable_decides_among_the_two(installed, monkeypatch, variable, chosen):
    installed += ["EGL"]
    monkeypatch.setenv("MUJOCO_GL", variable)
    assert select_gl_backend() == chosen


def test_nothing_installed(installed):
    with pytest.raises(NoOpenGLBackendError, match=f"^{re.escape(MISSING)}$"):
        select_gl_backend()


@pytest.mark.metaworld
def test_an_environment_with_pictures_says_so_at_once(installed, make_env):
    with pytest.raises(NoOpenGLBackendError, match=f"^{re.escape(MISSING)}$"):
        make_env(image_size=64)
    assert make_env(image_size=None).reset()["observation", "state"].shape == (39,)


@pytest.mark.parametrize("error", [ImportError, RuntimeError, AttributeError])
def test_a_library_that_cannot_draw(installed, monkeypatch, error):
    installed += ["EGL"]

    def fail(name):
        raise error(f"no {name} today")

    monkeypatch.setattr(importlib, "import_module", fail)
    message = (
        f"the OpenGL backend 'egl' was found but can't draw off screen: no mujoco.egl today. {HELP}"
    )
    with pytest.raises(NoOpenGLBackendError, match=f"^{re.escape(message)}$"):
        create_gl_context(64)
