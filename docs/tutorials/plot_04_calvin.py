"""
CALVIN, from the expert to a chain evaluation
=============================================

CALVIN's benchmark asks a robot for five tasks in a row, each by an instruction, without putting
anything back in between. This tutorial goes through it in small: a scripted expert records
demonstrations, policies are cloned from few and from many of them, and all play the same chains.
The recipe ``rftf calvin`` does it with all 34 tasks, and fine-tunes; see
:doc:`/how-to/calvin`.

The simulator, calvin_env, is not on PyPI. Where it is installed, this page runs it. Elsewhere the
page shows the numbers of the run that its authors kept in ``plot_04_calvin.json``, which this
script writes when there is no such file.
"""

# %%
# Is the simulator there?
# -----------------------

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from rftf_torchrl import CalvinNotInstalledError, keys, require_calvin_env

KEPT = Path("plot_04_calvin.json")
try:
    require_calvin_env()
    run = {}
except CalvinNotInstalledError as error:
    print(str(error).splitlines()[0])
    run = json.loads(KEPT.read_text(encoding="utf-8"))
live = not run
print("this page ran the simulator" if live else "this page shows the run that was kept")

# %%
# Chains
# ------
# The benchmark's thousand chains come from the code; they need no download and no simulator.

from rftf_torchrl import Chain, benchmark_sequences, initial_states

for chain in benchmark_sequences(3):
    print(" -> ".join(chain.tasks))

# %%
# To learn all of this takes more than a minute. Here a chain has three tasks, with the two lamps,
# the door and the drawer. Half of the initial states are for demonstrations, the others for the
# evaluation.


def flips(state):
    """The four tasks that change what an initial state says of lamps, door and drawer."""
    return (
        "turn_off_led" if state.led else "turn_on_led",
        "turn_off_lightbulb" if state.lightbulb else "turn_on_lightbulb",
        "move_slider_right" if state.slider == "left" else "move_slider_left",
        "close_drawer" if state.drawer == "open" else "open_drawer",
    )


def chains_of(states, generator):
    """A chain for each state: three of its four tasks, in random order."""
    order = [torch.randperm(4, generator=generator)[:3].tolist() for _ in states]
    return [
        Chain(state, tuple(flips(state)[k] for k in picked))
        for state, picked in zip(states, order, strict=True)
    ]


generator = torch.Generator().manual_seed(0)
shuffled = [
    initial_states()[k] for k in torch.randperm(len(initial_states()), generator=generator).tolist()
]
to_learn, to_play = chains_of(shuffled[:40], generator), chains_of(shuffled[-12:], generator)

# %%
# Demonstrations
# --------------
# The expert sees the simulator's true state and acts through the seven numbers that a policy has.
# :func:`~rftf_torchrl.record_chains` puts the blocks at new places, never at those of the
# benchmark, and keeps every task that the oracle found done. ``noise`` pushes the expert off its
# path and records the action without noise, so that the policy can learn to come back.

from rftf_torchrl import ChainToRecord, record_chains

if live:
    jobs = [ChainToRecord(chain, seed, noise=0.15) for seed, chain in enumerate(to_learn)]
    recorded = list(record_chains(jobs, workers=0))
    run["steps"] = {}
    for task in (task for chain in recorded for task in chain.tasks):
        run["steps"].setdefault(task.task, []).append(len(task.actions))
for name, steps in sorted(run["steps"].items()):
    print(f"{name:20} {len(steps):3} demonstrations of {min(steps)} to {max(steps)} steps")

# %%
# They are written as CALVIN's own data are, one file per frame, and read as the real dataset would
# be. With cameras (``image_size=...`` of a job) the frames hold images too. We make two folders:
# one of the first ten chains, one of all forty.

from rftf_torchrl import CalvinWriter, absolute_action, load_demonstrations, to_demonstrations
from rftf_torchrl.calvin.tasks import get_task


def write(tasks, root):
    """Each task is an episode with one annotated span."""
    with CalvinWriter(root, "training", scene="D") as writer:
        for task in tasks:
            first = None
            for step, (robot, scene) in enumerate(zip(task.robot_obs, task.scene_obs, strict=True)):
                actions = ()
                if step < len(task.actions):
                    actions = task.actions[step], absolute_action(task.robot_obs[step + 1])
                frame = writer.add_frame(robot, scene, *actions)
                first = frame if first is None else first
            writer.annotate(first, frame + 1, task.task, get_task(task.task).instruction)
            writer.end_episode()


if live:
    folder, demonstrations = Path(tempfile.mkdtemp()), {}
    for name, count in (("10 chains", 10), ("40 chains", 40)):
        done = [task for tasks in recorded[:count] for task in tasks]
        write(done, folder / f"calvin{count}")
        to_demonstrations(folder / f"calvin{count}", folder / f"demos{count}", show_progress=False)
        demonstrations[name] = load_demonstrations(folder / f"demos{count}")
    run["frames"] = {name: list(d.frames[keys.STATE].shape) for name, d in demonstrations.items()}
for name, (frames, width) in run["frames"].items():
    print(f"{name}: {frames} frames of {width} numbers")

# %%
# Cloning
# -------
# The state has 53 numbers when there is no image: hand, door, drawer, lamps, and the three
# blocks, seen from the hand too. One decision is a chunk of five actions.

from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import BCLoss

from rftf_torchrl import EncoderConfig, VisionLanguageEncoder, action_windows, small_vla

CHUNK = 5
torch.manual_seed(0)


def clone(demonstrations, steps=1000):
    """A small policy, and its mean error in the last hundred batches."""
    windows = action_windows(demonstrations, chunk_size=CHUNK)
    state = demonstrations.frames[keys.STATE]
    encoder = EncoderConfig(image_size=None, state_dim=state.shape[-1])
    policy = small_vla(encoder, chunk_size=CHUNK, action_dim=7)
    inner = next(m for m in policy.modules() if isinstance(m, VisionLanguageEncoder))
    inner.set_state_statistics(state.mean(0), state.std(0))
    cloning = BCLoss(policy, loss_function="l1")
    cloning.set_keys(action=keys.CHUNK, pad_mask=keys.CHUNK_IS_PAD)
    optimizer = torch.optim.Adam(cloning.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    errors = []
    for _ in range(steps):
        batch = windows.batch(torch.randint(len(windows), (128,), generator=generator))
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            loss = cloning(batch)["loss_bc"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        errors.append(loss.item())
    return policy, sum(errors[-100:]) / 100


if live:
    cloned = {name: clone(found) for name, found in demonstrations.items()}
    run["errors"] = {name: round(error, 4) for name, (_, error) in cloned.items()}
for name, error in run["errors"].items():
    print(f"{name}: mean error of an action it has seen {error:.3f}")

# %%
# The evaluation
# --------------
# :func:`~rftf_torchrl.evaluate_chains` plays by CALVIN's rules: one reset a chain, none
# between its tasks; a policy that starts each task afresh; done when the oracle says so; the first
# failure ends the chain. It takes a policy, or a controller such as the expert, and writes on the
# report in what the evaluation differs from the benchmark.

from rftf_torchrl import (
    CalvinExpert,
    ChainReport,
    chain_comparison_table,
    compare_chains,
    evaluate_chains,
)

if live:
    settings = {"chains": to_play, "steps_per_subtask": 180, "workers": 0}
    reports = {"expert": evaluate_chains(controller=CalvinExpert, **settings)}
    for name, (policy, _) in cloned.items():
        reports[name] = evaluate_chains(policy, image_size=None, chunk_size=CHUNK, **settings)
    run["reports"] = {name: report.to_dict() for name, report in reports.items()}
reports = {name: ChainReport.from_dict(report) for name, report in run["reports"].items()}
print(reports["40 chains"].markdown().split("\n- ")[0])

# %%
# Twelve chains give wide intervals. A comparison on the same chains, chain by chain, has a smaller
# interval. If that interval includes zero, these chains decide nothing: play more of them.

comparison = compare_chains(reports["10 chains"], reports["40 chains"])
print(chain_comparison_table(comparison, ("10 chains", "40 chains")))

# %%
# The length of each chain, and the share of chains that got so far, with 95% intervals.

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for place, (name, report) in enumerate(reports.items()):
    lengths = [result.length for result in report.results]
    axes[0].bar([k + 0.3 * place for k in range(len(lengths))], lengths, 0.3, label=name)
    rates = report.in_a_row
    middle = [rate["rate"] for rate in rates]
    errors = [
        [rate["rate"] - rate["low"] for rate in rates],
        [rate["high"] - rate["rate"] for rate in rates],
    ]
    axes[1].errorbar(range(1, len(rates) + 1), middle, errors, marker="o", capsize=3, label=name)
axes[0].set(xlabel="chain", ylabel="tasks in a row", yticks=range(4))
axes[1].set(xlabel="tasks in a row", ylabel="share of chains", xticks=(1, 2, 3), ylim=(0, 1.05))
labelled = axes[0].get_legend_handles_labels()
figure.legend(*labelled, loc="outside upper center", ncols=3)

# %%
# From here, RFTF takes a value model, trained on the same demonstrations without their actions, and
# practice: :doc:`plot_03_whole_recipe_in_small` has the loop, and ``rftf calvin`` runs
# it on CALVIN, ending in the table above for the policies before and after.

if live and not KEPT.exists():
    KEPT.write_text(json.dumps(run) + "\n", encoding="utf-8")
