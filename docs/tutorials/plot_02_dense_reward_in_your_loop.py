"""
A dense reward in your own loop
===============================

You have a TorchRL pipeline, and success is all that its environment rewards. This tutorial adds the
value difference to it with one transform, :class:`~rftf_torchrl.ValueReward`, and
changes nothing else: collector, advantage and PPO loss are TorchRL's own. The environment is
TorchRL's ``ToyVLAEnv``, which needs no simulator.
"""

# %%
# The environment
# ---------------
# An episode of ``ToyVLAEnv`` hides a target among the actions: the state holds the last action and
# the target (two numbers each), and success is an action near the target. We read the last action
# as the *position* of a hand. The task is to get from the origin to the target within ten steps.

import matplotlib.pyplot as plt
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import InitTracker, StepCounter
from torchrl.envs.custom import ToyVLAEnv
from torchrl.modules import MLP, NormalParamExtractor, ProbabilisticActor, TanhNormal
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

STATE = ("observation", "state")


def make_env():
    env = ToyVLAEnv(action_dim=2, state_dim=4, success_steps=1, success_tol=0.15, batch_size=[32])
    return env.append_transform(StepCounter(10)).append_transform(InitTracker())


# %%
# A value model from demonstrations
# ---------------------------------
# Our demonstrations move from the origin to the target in eight steps. The value model learns their
# order, and is calibrated: 0 at the start, 1 at the target. It is a
# :class:`~rftf_torchrl.TemporalValueModel` here, but any TensorDict module that writes
# ``"temporal_value"`` would do.
#
# We train two. The second also gets failed episodes, here random positions, which are to score
# below the ends of the demonstrations; time order in them counts for nothing.

from rftf_torchrl import TemporalRankingLoss, TemporalValueModel

FRAMES, EPISODES = 8, 256


def episodes(target, position, success):
    flag = torch.full((EPISODES, FRAMES, 1), success)
    state = torch.cat([position, target.expand_as(position)], -1)
    data = {STATE: state, "trajectory_success": flag, "task_id": torch.zeros_like(flag).long()}
    return TensorDict(data, batch_size=[EPISODES, FRAMES])


torch.manual_seed(0)
target = torch.rand(EPISODES, 1, 2) - 0.5
noise = 0.02 * torch.randn(EPISODES, FRAMES, 2)
progress = torch.linspace(0, 1, FRAMES)[:, None]
demonstrations = episodes(target, progress * target + noise, success=True)
failures = episodes(target, 2 * torch.rand(EPISODES, FRAMES, 2) - 1, success=False)


def train_value_model(data, **terms):
    torch.manual_seed(0)
    value_model = TemporalValueModel(MLP(4, 1, num_cells=[64, 64]), in_keys=[STATE])
    loss_module = TemporalRankingLoss(value_model, **terms)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=3e-3)
    for _ in range(400):
        losses = loss_module(data[torch.randint(len(data), (64,))])
        optimizer.zero_grad()
        sum(loss for key, loss in losses.items() if key.startswith("loss_")).backward()
        optimizer.step()
    value_model.calibrate(demonstrations[:, 0], demonstrations[:, -1], mode="global")
    print(f"pairs in the right order: {losses['pairwise_accuracy']:.3f}")
    return value_model


value_models = {
    "from demonstrations": train_value_model(demonstrations),
    "from both": train_value_model(torch.cat([demonstrations, failures]), failures=1.0),
}

# %%
# Both order the demonstrations. Look at where they send the hand, for a target at (0.3, 0.2):

axis = torch.linspace(-1, 1, 61)
grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
states = TensorDict(
    {STATE: torch.cat([grid, torch.tensor([0.3, 0.2]).expand_as(grid)], -1)}, batch_size=[61, 61]
)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
for ax, (label, value_model) in zip(axes, value_models.items(), strict=True):
    with torch.inference_mode():
        values = value_model(states.clone())["temporal_value"].squeeze(-1)
    contours = ax.contourf(axis, axis, values, levels=20)
    ax.plot(0, 0, "wo", label="start")
    ax.plot(0.3, 0.2, "w*", markersize=12, label="target")
    ax.set(title=label, xlabel="hand, x")
    figure.colorbar(contours, label="value")
axes[0].set_ylabel("hand, y")
axes[0].legend(labelcolor="white", facecolor="black")

# %%
# Demonstrations end at the target, so the first model knows nothing about the states behind it, and
# its value keeps rising there. A policy that follows it will overshoot. The second model has its
# maximum near the target.

# %%
# The reward
# ----------
# :math:`r_t = \text{success}_t + \gamma V(s_{t+1}) - V(s_t)`, with :math:`V = 0` after termination.
# As a collector's ``postproc``, the transform gets whole batches and evaluates each state once.
# ``ValueReward(None)`` is the sparse reward, for comparison.

from rftf_torchrl import ValueReward

GAMMA = 0.95
rewards = {"success alone": ValueReward(None, gamma=GAMMA)}
for label, value_model in value_models.items():
    rewards[f"and value, {label}"] = ValueReward(value_model, gamma=GAMMA)

# %%
# On a few random actions: the parts are kept under their own keys, and add up.

random_steps = make_env().rollout(4, break_when_any_done=False)[0]
rewards["and value, from both"](random_steps)
for key in ("outcome_reward", "dense_reward", "reward"):
    print(f"{key:15s}", [round(x, 3) for x in random_steps["next", key].flatten().tolist()])

# %%
# The loop
# --------
# Stock PPO. The only line of this library is ``postproc=reward``.


def train(reward, seed, iterations=12):
    torch.manual_seed(seed)
    network = nn.Sequential(MLP(4, 4, num_cells=[64]), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(network, [STATE], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        return_log_prob=True,
    )
    critic = TensorDictModule(MLP(4, 1, num_cells=[64]), [STATE], ["state_value"])
    collector = Collector(
        make_env(),
        actor,
        frames_per_batch=640,
        total_frames=640 * iterations,
        postproc=reward,
    )
    gae = GAE(gamma=GAMMA, lmbda=0.95, value_network=critic)
    loss_module = ClipPPOLoss(actor, critic)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=5e-3)
    success = []
    for data in collector:
        for _ in range(6):
            losses = loss_module(gae(data))
            loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ended = data["next", "done"]
        success.append(data["next", "success"][ended].float().mean().item())
    collector.shutdown()
    return success


curves = {label: [train(reward, seed) for seed in range(2)] for label, reward in rewards.items()}

# %%
# Share of successes among the episodes that ended in an iteration, two seeds each:

figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for number, (label, runs) in enumerate(curves.items()):
    for seed, run in enumerate(runs):
        ax.plot(run, color=f"C{number}", label=label if seed == 0 else None)
ax.set(xlabel="iteration", ylabel="success", ylim=(0, 1.03))
ax.legend()

# %%
# What it means
# -------------
# With the value model that has only seen success, success hardly rises: the policy collects value
# behind the target. The model that has seen failures does no such harm. It does not help much on
# this toy problem either. Shaping of this form does not change the optimal policy; it changes how
# fast it is found. Where a critic learns easily, there is little to speed up.
#
# For your own pipeline that means: measure the value model on your policy's own rollouts
# (:func:`~rftf_torchrl.final_value_auc`), compare with ``ValueReward(None)`` over
# several seeds, and watch whether failures gain as much value as successes
# (:func:`~rftf_torchrl.exploitation_watch`).
