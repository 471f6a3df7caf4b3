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
