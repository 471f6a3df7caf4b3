"""The quick start's collection against its floor, in one process: decisions per CPU-second.

The floor is the physics of the same actions, the hand's reset once per episode, and the images
that the policy looks at, with nothing around them. Its images are compared with the collector's.
Target: the collector at 0.6 of the floor or more. The three take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import mujoco
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule

from rftf_torchrl import Episode, EpisodeCollector, check_config, keys, make_simulator, register
from rftf_torchrl.configs.policies import new_policy
from rftf_torchrl.metaworld.env import ACTION_DIM

CONF = Path(__file__).parents[2] / "recipes" / "conf"
EPISODES_PER_TASK, ROUNDS = 3, 5
FLOOR = "floor: physics and images"
HAND_STEPS = 50  # of Meta-World's own reset of the hand
STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value


class BareEpisode:
    """A collected episode, played again by MuJoCo alone."""

    def __init__(self, simulator, trajectory: TensorDictBase, repeat: int, size: int) -> None:
        self.model, self.data, env = simulator.model, simulator.data, simulator._env
        self.picture = lambda: simulator.picture(size)
        self.limits, self.scale = (env.mocap_low, env.mocap_high), env.action_scale
        self.substeps, self.hand = env.frame_skip, env.hand_init_pos
        simulator.reset(trajectory["episode_seed"][0].item())
        self.state = np.empty(mujoco.mj_stateSize(self.model, STATE))
        mujoco.mj_getState(self.model, self.data, self.state, STATE)
        self.warmstart = self.data.qacc_warmstart.copy()
        self.body_pos, self.site_pos = self.model.body_pos.copy(), self.model.site_pos.copy()
        self.decisions = []
        for step in trajectory:
            actions = step[keys.CHUNK][step["next", "executed"]].numpy()
            self.decisions.append(np.clip(actions, -1.0, 1.0).repeat(repeat, 0))
        if trajectory["next", keys.SUCCESS][-1]:  # an action is held until success at most
            self.decisions[-1] = self.until_success(simulator, self.decisions)

    def until_success(self, simulator, decisions: list[np.ndarray]) -> np.ndarray:
        """The last decision's actions, without those after its success."""
        done = [simulator.step(action) for actions in decisions for action in actions]
        return decisions[-1][: len(decisions[-1]) - (len(done) - 1 - done.index(True))]

    def play(self) -> list[np.ndarray]:
        """Play it, and give the images, the start's first."""
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        model.body_pos[:], model.site_pos[:] = self.body_pos, self.site_pos
        data.mocap_pos[0], data.mocap_quat[0] = self.hand, (1, 0, 1, 0)
        data.ctrl[:] = -1, 1
        mujoco.mj_step(model, data, nstep=HAND_STEPS * self.substeps)
        mujoco.mj_setState(model, data, self.state, STATE)
        mujoco.mj_forward(model, data)
        data.qacc_warmstart[:] = self.warmstart
        images = [self.picture()]
        for actions in self.decisions:
            for action in actions:
                hand = data.mocap_pos[0] + self.scale * action[:3]
                data.mocap_pos[0] = hand.clip(*self.limits)
                data.ctrl[:] = action[3], -action[3]
                mujoco.mj_step(model, data, nstep=self.substeps)
                mujoco.mj_forward(model, data)
            images.append(self.picture())
        return images


class Replay(torch.nn.Module):
    """The chunks of collected episodes in place of a policy."""

    def __init__(self, data: TensorDictBase) -> None:
        super().__init__()
        self.chunks: dict[tuple[int, int], list[torch.Tensor]] = {}
        for row in data:
            episode = row[keys.TASK_ID].item(), row["episode_seed"].item()
            self.chunks.setdefault(episode, []).append(row[keys.CHUNK])
        self.played: dict[tuple[int, int], int] = {}

    def forward(self, task_id: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        chunks = []
        for episode in zip(task_id.flatten().tolist(), seed.flatten().tolist(), strict=True):
            turn = self.played.get(episode, 0)
            chunks.append(self.chunks[episode][turn])
            self.played[episode] = (turn + 1) % len(self.chunks[episode])
        return torch.stack(chunks)


def cpu_seconds(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def main() -> None:
    torch.set_num_threads(1)
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = check_config(compose("quickstart", overrides=["output=unused", "device=cpu"]))
    torch.manual_seed(0)
    policy, _ = new_policy(config, state_dim=4, action_dim=ACTION_DIM)
    simulator = make_simulator(config.env)
    factory = simulator.factory("train", Path("unused"))
    episodes = [Episode(task, s) for s in range(EPISODES_PER_TASK) for task in config.env.tasks]
    with EpisodeCollector(factory, policy, workers=0) as collector:
        data = collector.collect(episodes)
        replay = TensorDictModule(
            Replay(data), in_keys=[keys.TASK_ID, "episode_seed"], out_keys=[keys.CHUNK]
        )
        with EpisodeCollector(factory, replay, workers=0) as without_policy:
            again = without_policy.collect(episodes)
            assert (again["next", keys.IMAGE] == data["next", keys.IMAGE]).all()
            bare, envs = [], {}
            for number, episode in enumerate(episodes):
                env = envs.setdefault(episode.task, collector._envs[episode.task])
                part = data[data[keys.TRAJECTORY] == number]
                bare.append(
                    BareEpisode(
                        env.simulator, part, simulator.steps_per_action, config.env.image_size
                    )
                )
                images = torch.from_numpy(np.stack(bare[-1].play()))
                assert (images[:-1] == part[keys.IMAGE]).all(), episode
                assert (images[-1] == part["next", keys.IMAGE][-1]).all(), episode
            ways = {
                FLOOR: lambda: [episode.play() for episode in bare],
                "collector, recorded actions": lambda: without_policy.collect(episodes),
                "collector, small policy": lambda: collector.collect(episodes),
            }
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, way in ways.items():
                    seconds[name].append(cpu_seconds(way))
    floor = seconds[FLOOR]
    print("| what | decisions a CPU-second | of the floor |\n|---|---|---|")
    for name, taken in seconds.items():
        rate = len(data) / median(taken)
        ratio = median(f / t for f, t in zip(floor, taken, strict=True))
        print(f"| {name} | {rate:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
