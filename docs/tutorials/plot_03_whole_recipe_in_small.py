"""
The whole recipe in small
=========================

Demonstrations, cloning, value model, fine-tuning: the four stages of RFTF on one Meta-World task,
small enough to run while this page is built. With ``reward=rftf`` the recipes do the same with more
tasks, more data, logs and checkpoints. By default their reward fades as a task succeeds, and the
value model goes on learning from the policy's episodes. Three iterations of PPO prove nothing, and
are not meant to: results are in :doc:`/results/index`.
"""

# %%
# Settings
# --------
# One *decision* of the policy is a chunk of two actions, each held for three simulator steps. An
# episode has at most 20 decisions.

import copy
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from tensordict import TensorDict

from rftf_torchrl import (
    Episode,
    EpisodeCollector,
    MetaWorldEnv,
    MetaWorldFactory,
    ScriptedExpert,
    keys,
)
from rftf_torchrl.metaworld.tasks import get_task

TASK = get_task("window-open")
IMAGE, CHUNK, REPEAT, HORIZON = 48, 2, 3, 20
torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)

# %%
# Demonstrations
# --------------
# Four episodes of the scripted expert, as in the first tutorial.

from rftf_torchrl import DemonstrationWriter, load_demonstrations

root = Path(tempfile.mkdtemp()) / "demos"
record = {"id": TASK.id, "name": TASK.name, "instruction": TASK.instruction}
expert = ScriptedExpert(TASK)
env = MetaWorldEnv(TASK.name, image_size=IMAGE, action_repeat=REPEAT)
with DemonstrationWriter(root, tasks=[record], simulator="metaworld") as writer:
    for seed in range(4):
        current = env.reset(TensorDict({"episode_seed": torch.tensor([seed])}))
        frames = []
        while not current["success"] and len(frames) < CHUNK * HORIZON:
            action = torch.as_tensor(expert.action(env.simulator.state), dtype=torch.float32)
            frames.append(current.set("action", action))
            current = env.step(current)["next"]
        frames.append(current.set("action", torch.zeros(4)))
        episode = torch.stack([f.select("observation", "instruction", "action") for f in frames])
        writer.add_episode(
            episode, task_id=TASK.id, success=bool(current["success"]), goal_seed=seed
        )
env.close()
demonstrations = load_demonstrations(root)
print([(len(episode), episode.success) for episode in demonstrations.episodes])

# %%
# Behaviour cloning
# -----------------
# A small policy with a Gaussian head: a mean for each action of the chunk, and a standard deviation
# that cloning does not change. TorchRL's ``BCLoss`` compares means with the recorded actions.

from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import BCLoss

from rftf_torchrl import (
    EncoderConfig,
    VisionLanguageEncoder,
    action_windows,
    random_shift,
    small_vla,
)

encoder = EncoderConfig(image_size=IMAGE, state_dim=4, channels=(16, 32, 32))
policy = small_vla(encoder, chunk_size=CHUNK, action_dim=4, init_scale=0.3)
state = demonstrations.frames[keys.STATE]
next(m for m in policy.modules() if isinstance(m, VisionLanguageEncoder)).set_state_statistics(
    state.mean(0), state.std(0)
)

windows = action_windows(demonstrations, chunk_size=CHUNK)
cloning = BCLoss(policy, loss_function="l1")
cloning.set_keys(action=keys.CHUNK, pad_mask=keys.CHUNK_IS_PAD)
optimizer = torch.optim.Adam(cloning.parameters(), lr=1e-3)
for _ in range(120):
    batch = windows.batch(torch.randint(len(windows), (32,), generator=generator))
    batch[keys.IMAGE] = random_shift(batch[keys.IMAGE], 2, generator)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        loss = cloning(batch)["loss_bc"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"mean error of an action: {loss.item():.3f}")

# %%
# Value model
# -----------
# From the same files, without their actions.

from rftf_torchrl import TemporalRankingLoss, sample_clips, temporal_value_model

value_model = temporal_value_model(EncoderConfig(image_size=IMAGE, channels=(16, 32, 32)))
ranking = TemporalRankingLoss(value_model)
optimizer = torch.optim.Adam(ranking.parameters(), lr=1e-3)
for _ in range(80):
    clips = sample_clips(demonstrations, batch_size=8, frames=6, generator=generator)
    clips[keys.IMAGE] = random_shift(clips[keys.IMAGE], 2, generator)
    losses = ranking(clips)
    optimizer.zero_grad()
    losses["loss_ranking"].backward()
    optimizer.step()
first, last = demonstrations.spans[:, 0], demonstrations.spans[:, 1] - 1
value_model.calibrate(demonstrations.frames[first], demonstrations.frames[last])
print(f"pairs in the right order: {losses['pairwise_accuracy'].item():.3f}")

# %%
# Fine-tuning: what is needed
# ---------------------------
# The reward; a critic; advantages that bootstrap at truncations only; PPO with a divergence from
# the cloned policy; and minibatches with as many decisions from successes as from failures.

from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from rftf_torchrl import (
    BalancedTrajectorySampler,
    RFTFPPOLoss,
    ValueReward,
    label_outcomes,
    make_gae,
    mark_executed,
    small_critic,
    values_of_states,
)

reward = ValueReward(value_model, gamma=0.97)
critic = small_critic(encoder)
gae = make_gae(gamma=0.97, lmbda=0.95, average_gae=True)
ppo = RFTFPPOLoss(
    policy,
    critic,
    reference_actor=copy.deepcopy(policy),
    kl_coeff=0.01,
    kl_target=1.0,
    entropy_bonus=False,
    normalize_advantage=False,
)
optimizer = torch.optim.Adam(ppo.parameters(), lr=1e-4)

# %%
# Fine-tuning: the loop
# ---------------------
# :class:`~rftf_torchrl.EpisodeCollector` runs a *list of episodes* to their ends, here in this
# process (``workers=0``). Everything after it works on one flat batch of complete trajectories.

from rftf_torchrl import exploitation_watch, final_value_auc

factory = MetaWorldFactory("train", IMAGE, CHUNK, REPEAT, HORIZON)
collector = EpisodeCollector(factory, policy, workers=0)
for iteration in range(3):
    episodes = [Episode(TASK.name, seed=100 * iteration + number) for number in range(8)]
    collector.update_policy_weights_()
    data = collector.collect(episodes, seed=iteration)

    data = label_outcomes(data)  # the outcome, on every step of a trajectory
    data = mark_executed(data, policy)  # success inside a chunk ends it
    data = reward(data)  # one batched pass of the value model
    data[keys.STATE_VALUE], data["next", keys.STATE_VALUE] = values_of_states(
        critic, data, out_key=keys.STATE_VALUE
    )
    data = ppo.add_reference(gae(data))  # advantages, and the cloned policy's distribution

    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(len(data)),
        sampler=BalancedTrajectorySampler(seed=iteration),
        batch_size=64,
    )
    buffer.extend(data.exclude("next"))
    divergence = []
    for _ in range(2):
        for batch in buffer:
            losses = ppo(batch)
            optimizer.zero_grad()
            sum(loss for key, loss in losses.items() if key.startswith("loss_")).backward()
            optimizer.step()
            divergence.append(losses["kl_reference"].item())
    coefficient = ppo.adapt_kl(sum(divergence) / len(divergence))

    watch, auc = exploitation_watch(data), final_value_auc(data)["final_auc"]
    print(
        f"iteration {iteration}: {watch['successes']} of {len(episodes)} succeeded, divergence "
        f"{divergence[-1]:.3f}, coefficient {coefficient:.4f}\n    value gained by successes "
        f"{watch['success_gain']:.2f}, by failures {watch['failure_gain']:.2f}; area {auc:.2f}"
    )
collector.close()

# %%
# Watch the second line of each iteration. *Area* is the area under the ROC curve: how well the last
# value of an episode tells success from failure. 1 is perfect, 0.5 is chance. If it is low, or if
# failures gain nearly as much value as successes, the value model sees the hand move and not the
# window. A model from four demonstrations may well do so. By default the recipes let
# it go on learning from the policy's own episodes.
#
# The reward of one trajectory: dense at every decision, sparse at the end. If a trajectory
# terminates, the discounted sum of its dense rewards is minus its first value, whatever happened in
# between. So with this shaping a detour never pays.

ids = data[keys.TRAJECTORY]
longest = data[ids == ids.mode().values]
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
axes[0].plot(longest[keys.TEMPORAL_VALUE].squeeze(-1))
axes[0].set(xlabel="decision", ylabel="value")
axes[1].bar(range(len(longest)), longest["next", keys.DENSE_REWARD].squeeze(-1))
axes[1].set(xlabel="decision", ylabel="dense reward")

# %%
# Evaluation
# ----------
# On held-out states, with mean actions, and with an interval: a few episodes say little.

from rftf_torchrl import evaluate_success, held_out_episodes

factory = MetaWorldFactory("test", IMAGE, CHUNK, REPEAT, HORIZON)
with EpisodeCollector(factory, policy, workers=0) as collector:
    report = evaluate_success(collector, held_out_episodes([TASK.name], 8))
print(report.markdown())
