"""Settings under which the recipes of every family of vision-language models take seconds."""

from tiny import TINY

SENTENCES = ["open the drawer", "close the red window please", "push", "turn a door left", "move"]
VLA = [
    *(setting for setting in TINY if not setting.startswith(("env.", "demos.per", "evaluation."))),
    "env.image_size=32",
    "env.tasks=[window-open,window-close]",
    "env.horizon=2",
    "env.chunk_size=2",
    "env.options.action_repeat=8",
    "demos.per_task=1",
    "demos.held_out_per_task=1",
    "evaluation.episodes_per_task=1",
    "evaluation.swapped_per_task=1",
    "evaluation.video_episodes=1",
    "evaluation.video_size=64",
    "cloning.steps=2",
    "value.steps=2",
    "ppo.learning_rate=1e-3",
    "ppo.minibatch=4",
]
SHORT_PROMPT = "policy.options.prompt_tokens=32"
# The expert needs its time for the demonstrations; fine-tuning makes two decisions per episode.
LONG = "env.horizon=6"

CASES = {
    "smolvlm": [
        "policy=smolvlm",
        "policy.options.bins=16",
        "policy.options.image_options.size.longest_edge=28",
    ],
    "paligemma": ["policy=paligemma", "reward=rftf", "critic=temporal"],
    "qwen2_5_vl": [
        "policy=qwen_vl",
        "policy.options.head=flow",
        "policy.options.flow_steps=2",
        "policy.options.image_options.size.shortest_edge=784",
        "policy.options.image_options.size.longest_edge=784",
    ],
}
