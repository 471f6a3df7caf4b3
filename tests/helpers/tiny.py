"""Where the recipes are, and settings under which each takes seconds."""

from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"

TINY = [
    "env.image_size=null",
    "env.tasks=[window-open,window-close]",
    "env.horizon=6",
    "env.chunk_size=2",
    "env.options.action_repeat=8",
    "demos.per_task=2",
    "demos.held_out_per_task=1",
    "cloning.steps=4",
    "cloning.batch_size=8",
    "value.steps=4",
    "value.clips=4",
    "value.frames=3",
    "value.rollout_episodes=2",
    "ppo.iterations=2",
    "ppo.episodes_per_task=2",
    "ppo.epochs=2",
    "ppo.minibatch=8",
    "ppo.checkpoint_every=1",
    "evaluation.episodes_per_task=2",
    "evaluation.swapped_per_task=2",
    "evaluation.video_episodes=1",
    "evaluation.video_size=64",
    "collector.workers=0",
    "logger=csv",
    "device=cpu",
]

CALVIN = [
    *(setting for setting in TINY if not setting.startswith(("env.", "demos."))),
    # The first task of the first training chain, and the last of it and first of the second.
    "env.tasks=[open_drawer,turn_off_lightbulb]",
    "ppo.tasks=null",
    "env.horizon=3",
    "demos.per_task=1",
    "demos.held_out_per_task=0",
    "env.options.demo_chains=2",
    "env.options.start_chains=3",
    "env.options.benchmark_chains=2",
    "env.options.steps_per_subtask=8",
]


def tiny_study(output, *overrides):
    """What to write after ``compare.py`` for a study of seconds."""
    settings = [o for o in TINY if not o.startswith(("value.", "evaluation.", "logger"))]
    settings += ["value.steps=4", "value.clips=4", "value.frames=3", "value.rollout_episodes=1"]
    settings += ["evaluation.episodes_per_task=2", "logger=none", "threads=1"]
    settings += ["env.tasks=[drawer-open]"]
    quoted = ",".join(f"'{setting}'" for setting in settings)
    return [
        f"settings=[{quoted}]",
        "+task_sets.tiny=['ppo.env_steps=1500']",
        "only_task_sets=[tiny]",
        "methods=[sparse,rftf_failures]",
        "seeds=[0,1]",
        "curve_every=2",
        "curve_episodes=1",
        "resamples=100",
        f"output={output}",
        *overrides,
    ]
