"""Meta-World tasks with sentences, seeded disjoint initial states and fast pictures."""

from rftf_torchrl.envs.metaworld.env import MetaWorldEnv
from rftf_torchrl.envs.metaworld.expert import ScriptedExpert
from rftf_torchrl.envs.metaworld.factory import MetaWorldFactory
from rftf_torchrl.envs.metaworld.gl import NoOpenGLBackendError, select_gl_backend
from rftf_torchrl.envs.metaworld.goals import GoalSampler
from rftf_torchrl.envs.metaworld.rendering import FastRenderer
from rftf_torchrl.envs.metaworld.tasks import SAME_SCENE, TASKS, Task, get_task

__all__ = [
    "SAME_SCENE",
    "TASKS",
    "FastRenderer",
    "GoalSampler",
    "MetaWorldEnv",
    "MetaWorldFactory",
    "NoOpenGLBackendError",
    "ScriptedExpert",
    "Task",
    "get_task",
    "select_gl_backend",
]
