"""Choose the off-screen OpenGL backend through which MuJoCo draws."""

from __future__ import annotations

import ctypes.util
import importlib
import logging
import os
from typing import Any

from rftf_torchrl.errors import UserError

logger = logging.getLogger(__name__)

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
_HELP = (
    "On Debian or Ubuntu: 'apt-get install libegl1 libgl1 libgl1-mesa-dri' (EGL) or 'apt-get "
    "install libosmesa6' (OSMesa, with MUJOCO_GL=osmesa); on a GPU server the driver's libEGL is "
    "enough. To work without images, from the state, use image_size=None, in the recipes "
    "env.image_size=null."
)


class NoOpenGLBackendError(UserError):
    """Nothing is installed through which MuJoCo can draw without a screen."""


def select_gl_backend() -> str:
    """Name the backend to draw with: ``"egl"`` where its library is found, else ``"osmesa"``.

    ``MUJOCO_GL``, MuJoCo's own variable, decides when it is set to one of these two.

    Raises:
        NoOpenGLBackendError: when neither library is installed.

    Example:
        >>> from rftf_torchrl import select_gl_backend
        >>> select_gl_backend() in {"egl", "osmesa"}
        True
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen in _LIBRARIES:
        return chosen
    for name, library in _LIBRARIES.items():
        if ctypes.util.find_library(library):
            return name
    raise NoOpenGLBackendError(
        f"no off-screen OpenGL backend: neither libEGL nor libOSMesa was found. {_HELP}"
    )


def create_gl_context(size: int) -> Any:
    """A MuJoCo OpenGL context of :func:`select_gl_backend`'s choice, made current.

    MuJoCo picks its own context class from ``MUJOCO_GL`` at its first import, which another
    library may have triggered long ago; asking for the class by name works at any time.

    Args:
        size: edge of the largest image in pixels.

    Raises:
        NoOpenGLBackendError: when the backend can't make a context.
    """
    name = select_gl_backend()
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        context = importlib.import_module(f"mujoco.{name}").GLContext(size, size)
        context.make_current()
    except (ImportError, RuntimeError, AttributeError) as error:
        raise NoOpenGLBackendError(
            f"the OpenGL backend {name!r} was found but can't draw off screen: {error}. {_HELP}"
        ) from error
    logger.debug("rendering through %s", name)
    return context
