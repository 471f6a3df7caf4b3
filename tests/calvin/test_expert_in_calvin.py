"""The scripted expert in the real simulator: some tasks, and chains of them."""

from __future__ import annotations

import numpy as np
import pytest
from _calvin_steps import walk

from rftf_torchrl import (
    CalvinExpert,
    starting_states,
    training_scene,
    training_sequences,
)


@pytest.fixture(scope="module")
def simulators(requires_calvin):
    from rftf_torchrl import CalvinSimulator

    made = {}

    def get(scene):
        if scene not in made:
            made[scene] = CalvinSimulator(scene)
        return made[scene]

    yield get
    for simulator in made.values():
        simulator.close()


@pytest.mark.calvin
class TestInCalvin:
    @pytest.mark.parametrize(
        ("scene", "task"),
        [
            ("D", "rotate_blue_block_left"),
            ("D", "push_pink_block_right"),
            ("D", "turn_on_lightbulb"),
            ("D", "turn_off_lightbulb"),
            ("D", "turn_off_led"),
            ("D", "push_into_drawer"),
            ("A", "close_drawer"),
            ("A", "lift_pink_block_slider"),
            ("B", "move_slider_left"),
            ("B", "lift_red_block_table"),
            ("C", "open_drawer"),
            ("C", "turn_on_lightbulb"),
        ],
    )
    def test_a_task(self, simulators, scene, task):
        simulator = simulators(scene)
        simulator.reset(*training_scene(starting_states(task)[-1], 3, scene))
        (steps,) = walk(simulator, CalvinExpert(), [task], max_steps=150)
        assert 5 < steps < 150

    def test_chains(self, simulators):
        simulator = simulators("D")
        done, seen = 0, []
        for seed, chain in enumerate(training_sequences(2, 6)):
            simulator.reset(*training_scene(chain.initial_state, seed))
            steps = walk(
                simulator,
                CalvinExpert(noise=0.05, seed=seed),
                chain.tasks,
                on_step=lambda index, task, action: seen.append((index, task, action)),
            )
            done += len(steps)
        assert done >= 27
        assert {index for index, *_ in seen} == set(range(5))

    def test_a_walk_repeats_bitwise(self, simulators):
        simulator = simulators("D")
        runs = []
        for _ in range(2):
            actions = []
            simulator.reset(*training_scene(starting_states("open_drawer")[0], 5))
            walk(
                simulator,
                CalvinExpert(noise=0.1, seed=4),
                ["open_drawer"],
                on_step=lambda index, task, action, actions=actions: actions.append(action),
            )
            runs.append(np.array(actions))
        np.testing.assert_array_equal(*runs)

    def test_a_failed_task_ends_the_walk(self, simulators):
        simulator = simulators("D")
        simulator.reset(*training_scene(starting_states("open_drawer")[0], 5))
        tasks = ["close_drawer", "open_drawer"]
        assert walk(simulator, CalvinExpert(), tasks, max_steps=20) == []
