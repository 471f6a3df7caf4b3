"""
From videos to a dense reward
=============================

You have short videos of a robot at work, an instruction for each, and no actions. That is all that
a value model needs. This tutorial makes eight such videos, so that it can run anywhere, and goes
from the files to a value over time, to an annotated video and to a dense reward in a TorchRL loop.
With videos of your own, begin at the second section; :doc:`/how-to/videos` has every option.
"""

# %%
# Eight videos
# ------------
# Meta-World's scripted expert opens a window four times and closes it four times. Of each episode
# we keep the images alone, as mp4, and write ``captions.csv``: a line for each file. The outcome
# may be left out; a video is then taken as a demonstration.

import csv
import tempfile
from pathlib import Path

import imageio.v2 as imageio
import matplotlib.pyplot as plt
import numpy as np
import torch

from rftf_torchrl import MetaWorldEnv, ScriptedExpert, record_episode
from rftf_torchrl.metaworld.tasks import get_task

FPS = 5
folder = Path(tempfile.mkdtemp())
videos = folder / "my_videos"
videos.mkdir()


def play(name, seed):
    """Images of one episode, uint8 [T, 64, 64, 3], its instruction, and whether it succeeded."""
    task = get_task(name)
    env, expert = MetaWorldEnv(name, action_repeat=3), ScriptedExpert(task)

    def act(env):
        action = expert.action(env.simulator.state)
        return action, action

    episode, success, _ = record_episode(env, act, seed, max_actions=60)
    env.close()
    return episode["observation", "image"].permute(0, 2, 3, 1).numpy(), task.instruction, success


episodes = [play(name, seed) for name in ("window-open", "window-close") for seed in range(4)]
with (videos / "captions.csv").open("w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(["file", "instruction", "success"])
    for number, (pictures, sentence, success) in enumerate(episodes):
        imageio.mimwrite(videos / f"{number}.mp4", pictures, fps=FPS)
        table.writerow([f"{number}.mp4", sentence, success])

print((videos / "captions.csv").read_text(encoding="utf-8"))

# %%
# The same in LeRobot's format
# ----------------------------
# LeRobot's data sets hold the instructions, and a table of episodes and one of frames; the videos
# of a camera lie back to back in one file. LeRobot writes these folders itself. Here we write what
# has to be in one of the format v3.0; a robot's state and actions are further columns of the
# frames, which the reader leaves alone.

import json

import pyarrow as pa
from pyarrow import parquet

lerobot = folder / "lerobot"
CAMERA = "observation.images.front"
pictures, sentences, _ = zip(*episodes, strict=True)
names = sorted(set(sentences))
task_index = [names.index(sentence) for sentence in sentences]
lengths = np.array([len(each) for each in pictures])
stops, number = np.cumsum(lengths), np.arange(len(episodes))
first_file = {"chunk_index": 0 * number, "file_index": 0 * number}
tables = {
    "meta/tasks": {"task_index": [0, 1], "task": names},
    "meta/episodes/chunk-000/file-000": {
        "episode_index": number,
        "length": lengths,
        **{f"data/{name}": column for name, column in first_file.items()},
        **{f"videos/{CAMERA}/{name}": column for name, column in first_file.items()},
        f"videos/{CAMERA}/from_timestamp": (stops - lengths) / FPS,
        f"videos/{CAMERA}/to_timestamp": stops / FPS,
    },
    "data/chunk-000/file-000": {
        "episode_index": number.repeat(lengths),
        "frame_index": np.concatenate([np.arange(length) for length in lengths]),
        "task_index": np.repeat(task_index, lengths),
    },
}
info = {
    "codebase_version": "v3.0",
    "fps": FPS,
    "features": {CAMERA: {"dtype": "video", "shape": [64, 64, 3]}},
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
for name, columns in tables.items():
    (lerobot / name).parent.mkdir(parents=True)
    parquet.write_table(pa.table(columns), lerobot / f"{name}.parquet")
(lerobot / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
back_to_back = lerobot / "videos" / CAMERA / "chunk-000/file-000.mp4"
back_to_back.parent.mkdir(parents=True)
imageio.mimwrite(back_to_back, np.concatenate(pictures), fps=FPS)

# %%
# Read them
# ---------
# :func:`~rftf_torchrl.video_episodes` goes through the episodes of either. Frames are decoded when
# they are asked for.

from rftf_torchrl import video_episodes

for kind, source in {"videos": videos, "lerobot": lerobot}.items():
    for episode in list(video_episodes(source, kind))[3:5]:
        print(f"{episode.name}: {episode.instruction!r}, frames {list(episode.read().shape)}")

# %%
# For training, :func:`~rftf_torchrl.import_videos` decodes a source once, into a folder of
# demonstrations without actions. One video of each instruction is held out. From here on it does
# not matter what the source was: the frames of both differ by what the codec changed.

from rftf_torchrl import DataConfig, import_videos, keys


def decoded(kind, source):
    data = DataConfig(path=str(source), kind=kind, held_out=0.25)
    return import_videos(data, folder / f"frames_{kind}")


demonstrations, again = decoded("videos", videos), decoded("lerobot", lerobot)
train, held_out = (demonstrations.select(split=split) for split in ("train", "test"))
print(f"{len(train.episodes)} videos to learn from, {len(held_out.episodes)} held out")
difference = demonstrations.frames[keys.IMAGE].float() - again.frames[keys.IMAGE].float()
print(f"mean difference of a pixel between the two sources: {difference.abs().mean():.2f} of 255")

# %%
# Train
# -----
# The loss asks that later frames score higher than earlier ones (:doc:`plot_01_value_model`
# explains it). Calibration then gives the score its unit: 0 at the first frames, 1 at the last.

from rftf_torchrl import (
    EncoderConfig,
    TemporalRankingLoss,
    random_shift,
    sample_clips,
    temporal_value_model,
)

torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
model = temporal_value_model(EncoderConfig(image_size=64, channels=(16, 32, 32)))
ranking = TemporalRankingLoss(model)
optimizer = torch.optim.Adam(ranking.parameters(), lr=1e-3)
for _ in range(150):
    clips = sample_clips(train, batch_size=8, frames=6, generator=generator)
    clips[keys.IMAGE] = random_shift(clips[keys.IMAGE], 3, generator)
    losses = ranking(clips)
    optimizer.zero_grad()
    losses["loss_ranking"].backward()
    optimizer.step()
first, last = train.spans[:, 0], train.spans[:, 1] - 1
model.calibrate(train.frames[first], train.frames[last])
model.save(folder / "value.safetensors")
print(f"pairs in the right order: {losses['pairwise_accuracy'].item():.3f}")

# %%
# One command does the same, with a learning rate that falls to zero. ``data=`` takes either folder.
#
# .. code-block:: bash
#
#     rftf train-value data=my_videos data.held_out=0.25 output=outputs/windows \
#         value.steps=150 value.clips=8 value.frames=6
#
# Value over time
# ---------------
# Along the two held-out videos, with their own instruction and with the other one.


@torch.inference_mode()
def value_along(frames):
    return model(frames.select("observation", "instruction"))["temporal_value"].squeeze(-1)


shown = [held_out.frames[start:stop].to_tensordict() for start, stop in held_out.spans.tolist()]
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for ax, episode, frames, other in zip(axes, held_out.episodes, shown, shown[::-1], strict=True):
    sentence = held_out.tasks[episode.task_id].instruction
    swapped = frames.copy().set("instruction", other["instruction"][:1].expand(len(frames)))
    ax.plot(np.arange(len(frames)) / FPS, value_along(frames), label="its instruction")
    ax.plot(np.arange(len(frames)) / FPS, value_along(swapped), "--", label="the other instruction")
    ax.set(title=f"{episode.source}: {sentence}", xlabel="seconds")
axes[0].set_ylabel("value")
axes[0].legend()

# %%
# Both rise from about 0 to about 1. With the other instruction they rise, too: these videos can be
# put in order without the instruction, so the model did not learn to read it. ``rftf value-report
# data=...`` measures this on your data, and the loss has a term against it,
# ``wrong_instruction``.
#
# An annotated video
# ------------------
# :func:`~rftf_torchrl.overlay_value` draws the value below each frame, up to the present one, and
# :func:`~rftf_torchrl.write_video` writes an mp4, and the WebP that you see here. ``rftf annotate``
# does so for all episodes of a source, and flags those that look wrong.

from rftf_torchrl import overlay_value, write_video

larger = torch.nn.functional.interpolate(shown[0][keys.IMAGE], scale_factor=4)
captioned = overlay_value(larger, value_along(shown[0]), success=True, title="open the window")
video = write_video(captioned, folder / "annotated.mp4", fps=FPS)

# %%
# A dense reward
# --------------
# The model is a reward for any TorchRL loop: :class:`~rftf_torchrl.ValueReward` is the collector's
# ``postproc``, and everything else below is TorchRL's own. The images have to come as those of
# the videos did, from the same camera and at the model's size.

from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import InitTracker
from torchrl.modules import MLP, NormalParamExtractor, ProbabilisticActor, TanhNormal
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from rftf_torchrl import TemporalValueModel, ValueReward

GAMMA = 0.97
network = nn.Sequential(MLP(4, 8, num_cells=[64]), NormalParamExtractor())
actor = ProbabilisticActor(
    TensorDictModule(network, [keys.STATE], ["loc", "scale"]),
    in_keys=["loc", "scale"],
    distribution_class=TanhNormal,
    return_log_prob=True,
)
critic = TensorDictModule(MLP(4, 1, num_cells=[64]), [keys.STATE], ["state_value"])
gae = GAE(gamma=GAMMA, lmbda=0.95, value_network=critic)
ppo = ClipPPOLoss(actor, critic)
optimizer = torch.optim.Adam(ppo.parameters(), lr=1e-3)
collector = Collector(
    MetaWorldEnv("window-open", action_repeat=3, horizon=20).append_transform(InitTracker()),
    actor,
    frames_per_batch=60,
    total_frames=180,
    postproc=ValueReward(TemporalValueModel.load(folder / "value.safetensors"), gamma=GAMMA),
)
for iteration, data in enumerate(collector):
    for _ in range(4):
        losses = ppo(gae(data))
        optimizer.zero_grad()
        (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
        optimizer.step()
    dense, success = data["next", "dense_reward"], data["next", "success"]
    print(
        f"iteration {iteration}: {int(success.sum())} successes in {len(data)} steps, dense "
        f"reward {dense.mean():+.3f} a step, from {dense.min():+.3f} to {dense.max():+.3f}"
    )
collector.shutdown()

# %%
# After three iterations the policy has learned nothing, and it has no success yet. With success
# alone, the reward would have been 0 at every step. The dense reward already tells the steps apart.
# The three episodes of the last iteration:

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for values, rewards in zip(data["next", "temporal_value"].split(20), dense.split(20), strict=True):
    axes[0].plot(values.squeeze(-1))
    axes[1].plot(rewards.squeeze(-1))
axes[0].set(title="value", xlabel="step")
axes[1].set(title="dense reward", xlabel="step")

# %%
# Before you train on such a reward, look at your policy's failures. Six videos of successes are
# enough to order the frames of two more like them. They say little about a hand that makes the
# right movement beside the handle. ``rftf value-report data=...`` measures this on labelled
# failures, and :func:`~rftf_torchrl.final_value_auc` on a policy's rollouts.
# :doc:`/how-to/videos` says how many videos were enough in our measurements.
