"""CPU-seconds of a state-only CALVIN episode with an exact reset: calvin_env's own against ours."""

from __future__ import annotations

import argparse
import time

import numpy as np

from rftf_torchrl import CalvinSimulator, default_states, require_calvin_env
from rftf_torchrl.calvin.settings import env_settings


class Own:
    """calvin_env as it is, loaded again for an exact reset."""

    def __init__(self) -> None:
        from calvin_env.envs.play_table_env import PlayTableSimEnv

        self.env = PlayTableSimEnv(**env_settings(require_calvin_env(), "D"))

    def reset(self, robot_obs: np.ndarray, scene_obs: np.ndarray) -> None:
        self.env.load()
        self.env.reset(robot_obs, scene_obs)

    def step(self, action: np.ndarray) -> None:
        observation, *_ = self.env.step(action)
        self.robot_obs, self.scene_obs = observation["robot_obs"], observation["scene_obs"]


def episode(simulator, start, actions):
    """CPU-seconds of the reset and of the steps, and the last state."""
    begin = time.process_time()
    simulator.reset(*start)
    after = time.process_time()
    for action in actions:
        simulator.step(action)
    end = time.process_time()
    return after - begin, end - after, np.concatenate([simulator.robot_obs, simulator.scene_obs])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=10)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    simulators = {"calvin_env, loaded again": Own(), "CalvinSimulator": CalvinSimulator("D")}
    best = {name: [float("inf")] * 2 for name in simulators}
    for number in range(given.episodes):
        start = default_states("train")("lift_red_block_table", number)
        actions = rng.uniform(-0.5, 0.5, (given.steps, 7))
        actions[:, 6] = 1
        ends = []
        for name, simulator in simulators.items():
            *seconds, end = episode(simulator, start, actions)
            best[name] = [min(pair) for pair in zip(best[name], seconds, strict=True)]
            ends.append(end)
        assert np.array_equal(*ends), "the two play differently"
    slowest = sum(best["calvin_env, loaded again"])
    print(
        f"the same {given.episodes} episodes of {given.steps} control steps, equal in every bit; "
        "the fastest of each\n\n"
        "| | ms a reset | ms a step | control steps a core-hour | times faster |\n"
        "|---|---|---|---|---|"
    )
    for name, (reset, steps) in best.items():
        print(
            f"| {name} | {1000 * reset:.0f} | {1000 * steps / given.steps:.2f} | "
            f"{3600 * given.steps / (reset + steps):,.0f} | {slowest / (reset + steps):.2f} |"
        )
