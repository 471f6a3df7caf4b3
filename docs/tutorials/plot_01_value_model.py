"""
A value model from demonstrations
=================================

How far has a task come? A value model answers from an image and an instruction. It learns the
answer from the *order of the frames* in demonstrations, and never sees an action. In this tutorial
we record demonstrations of two Meta-World tasks, train a value model, look at its values over time,
and check it against a control that has nothing to learn.
"""

# %%
# Demonstrations
# --------------
# Meta-World ships scripted experts. An environment with plain actions (``chunk_size=None``) and an
# expert give episodes; :class:`~rftf_torchrl.DemonstrationWriter` puts them on disk. The two
# tasks share their scene, so that only the instruction says which is which.

import tempfile
from pathlib import Path

import torch
from tensordict import TensorDict

from rftf_torchrl import DemonstrationWriter, MetaWorldEnv, ScriptedExpert
from rftf_torchrl.metaworld.tasks import get_task

tasks = [get_task("window-open"), get_task("window-close")]


def record(env, expert, seed):
    """One episode of the expert: frames [T], the last of which has no action."""
    current = env.reset(TensorDict({"episode_seed": torch.tensor([seed])}))
    frames, success = [], False
    while not success and len(frames) < 60:
        action = torch.as_tensor(expert.action(env.simulator.state), dtype=torch.float32)
        frames.append(current.set("action", action))
        current = env.step(current)["next"]
        success = bool(current["success"])
    frames.append(current.set("action", torch.zeros(4)))
    return torch.stack([f.select("observation", "instruction", "action") for f in frames]), success


root = Path(tempfile.mkdtemp()) / "demos"
records = [{"id": t.id, "name": t.name, "instruction": t.instruction} for t in tasks]
with DemonstrationWriter(root, tasks=records, simulator="metaworld", action_repeat=3) as writer:
    for task in tasks:
        for split, count in {"train": 6, "test": 3}.items():
            env = MetaWorldEnv(task.name, split=split, action_repeat=3)
            for seed in range(count):
                episode, success = record(env, ScriptedExpert(task), seed)
                writer.add_episode(
                    episode, task_id=task.id, success=success, goal_seed=seed, split=split
                )
            env.close()

# %%
# :func:`~rftf_torchrl.load_demonstrations` checks every frame and opens them memory-mapped.
# Training and test episodes start from states that are disjoint by construction.

from rftf_torchrl import load_demonstrations

demonstrations = load_demonstrations(root).select(success=True)
train = demonstrations.select(split="train")
held_out = demonstrations.select(split="test")
print(f"{len(train.episodes)} episodes to learn from, {len(held_out.episodes)} held out")
print("sentences:", [task.instruction for task in demonstrations.tasks])

# %%
# Clips
# -----
# The loss is computed on *clips*: a few frames of an episode at random times, in time order. This
# is all that the value model gets to see; asking for the actions would raise an error.

import matplotlib.pyplot as plt

from rftf_torchrl import sample_clips

generator = torch.Generator().manual_seed(0)
clips = sample_clips(train, batch_size=2, frames=6, generator=generator)
print(sorted(map(str, clips.keys(True, True))))

figure, axes = plt.subplots(2, 6, figsize=(9, 3.4), layout="constrained")
for row, clip in zip(axes, clips, strict=True):
    for ax, frame in zip(row, clip, strict=True):
        ax.imshow(frame["observation", "image"].permute(1, 2, 0))
        ax.set_title(f"frame {frame['frame_index'].item()}", fontsize=9)
        ax.axis("off")

# %%
# Training
# --------
# For :math:`n` frames there are :math:`\binom{n}{2}` ordered pairs, and the loss asks each later
# frame to score higher than each earlier one:
#
# .. math::
#     L = -\frac{1}{\binom{n}{2}} \sum_{i<j} \log \sigma\big( V(s_j, l) - V(s_i, l) \big).
#
# All pairs come from :math:`n` evaluations. Images are shifted by a few pixels at random, so that
# the model does not memorise the few episodes.

from rftf_torchrl import EncoderConfig, TemporalRankingLoss, random_shift, temporal_value_model


def train_value_model(shuffle_time=False, steps=150):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = temporal_value_model(EncoderConfig(image_size=64, channels=(16, 32, 32)))
    loss_module = TemporalRankingLoss(model)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=1e-3)
    accuracy = []
    for _ in range(steps):
        clips = sample_clips(
            train, batch_size=8, frames=6, generator=generator, shuffle_time=shuffle_time
        )
        image = random_shift(clips["observation", "image"], 3, generator)
        losses = loss_module(clips.set(("observation", "image"), image))
        optimizer.zero_grad()
        losses["loss_ranking"].backward()
        optimizer.step()
        accuracy.append(losses["pairwise_accuracy"].item())
    return model, accuracy


model, accuracy = train_value_model()

# %%
# The control: frames in random order
# -----------------------------------
# With ``shuffle_time=True`` the frames of a clip come in random order. A model that is trained on
# them has nothing to learn; whatever it seems to know comes from somewhere else.

control, control_accuracy = train_value_model(shuffle_time=True)

figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for label, curve in {"in time order": accuracy, "shuffled": control_accuracy}.items():
    smooth = torch.tensor(curve).unfold(0, 10, 1).mean(-1)
    ax.plot(range(10, len(curve) + 1), smooth, label=label)
ax.set(xlabel="optimizer step", ylabel="pairs in the right order", ylim=(0, 1.03))
ax.legend()

# %%
# Held-out demonstrations
# -----------------------
# Calibration gives the score a unit: the first frames of the training demonstrations of each
# instruction are 0 on average, the last ones 1. Both metrics below are computed on episodes that
# the model has not seen.

from rftf_torchrl import pairwise_accuracy, value_order_correlation

first, last = train.spans[:, 0], train.spans[:, 1] - 1
model.calibrate(train.frames[first], train.frames[last], mode="instruction")
control.calibrate(train.frames[first], train.frames[last], mode="standardise")

test_clips = sample_clips(held_out, batch_size=64, frames=8, generator=generator)
for label, trained in {"value model": model, "control": control}.items():
    with torch.inference_mode():
        values = trained(test_clips)["temporal_value"].squeeze(-1)
    print(
        f"{label:11s} pairwise accuracy {pairwise_accuracy(values):.3f}, "
        f"order correlation {value_order_correlation(values):+.3f}"
    )

# %%
# The control's correlation need not be zero: frames of an episode change smoothly, so that any
# function of them goes up or down with time. What training on random order can't give is a
# direction that is right for every episode and every task.
#
# Value over time
# ---------------
# Along each held-out episode, and along rollouts of random actions from the same states. The value
# should rise from about 0 to about 1 for the expert, and should not rise for random actions.


@torch.inference_mode()
def value_along(frames):
    return model(frames.select("observation", "instruction"))["temporal_value"].squeeze(-1)


figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
for ax, task in zip(axes, tasks, strict=True):
    for start, stop in held_out.select(tasks=[task.name]).spans.tolist():
        ax.plot(value_along(held_out.frames[start:stop]), color="tab:green")
    env = MetaWorldEnv(task.name, split="test", action_repeat=3)
    torch.manual_seed(0)
    for seed in range(3):
        start = env.reset(TensorDict({"episode_seed": torch.tensor([seed])}))
        rollout = env.rollout(30, auto_reset=False, tensordict=start)
        ax.plot(value_along(rollout["next"]), color="tab:red", linestyle="--")
    env.close()
    ax.set(title=task.instruction, xlabel="decision")
axes[0].set_ylabel("value")
axes[0].plot([], color="tab:green", label="expert, held out")
axes[0].plot([], color="tab:red", linestyle="--", label="random actions")
axes[0].legend()

# %%
# What this does not show
# -----------------------
# Experts never fail. So nothing here says that the value model would notice a failure that *looks*
# like a success: a hand that makes the right movement beside the handle. Order within
# demonstrations is necessary, not sufficient. Before a policy is trained on a value model,
# :func:`~rftf_torchrl.final_value_auc` measures on the policy's own rollouts how well
# the last values tell success from failure; ``rftf finetune`` does so in its first iteration
# and warns. The third tutorial shows it.
#
# :meth:`TemporalValueModel.save <rftf_torchrl.TemporalValueModel.save>` writes weights,
# calibration and sizes to one file, which the recipes take as ``value.path=``.

model.save(root.parent / "value.safetensors")
