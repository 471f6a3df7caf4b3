"""One CalvinEnv plays every task: words, chains of subtasks, and a collector's episodes."""

from __future__ import annotations

import pickle

import torch
from _calvin_steps import chunk, flags, start
from fake_calvin import trace_start
from tensordict.nn import TensorDictModule

from rftf_torchrl import CalvinFactory, Episode, EpisodeCollector
from rftf_torchrl.calvin.sequences import starting_states
from rftf_torchrl.calvin.tasks import TASKS


def test_one_environment_plays_any_task(make_fake_env):
    env = make_fake_env(states=trace_start)
    usual = start(env, 1)
    simulator = env.simulator
    env.set_task("turn_on_led")
    other = start(env, 1)
    assert (usual["task_id"].item(), other["task_id"].item()) == (15, TASKS["turn_on_led"].id)
    assert env.instruction == "switch the green lamp on"
    assert (usual["instruction", "tokens"] != other["instruction", "tokens"]).any()
    assert env.simulator is simulator


def test_without_states_only_tasks_are_drawn_with_which_a_chain_starts(make_fake_env):
    env = make_fake_env(None)
    drawn = {start(env, seed)["task_id"].item() for seed in range(300)}
    assert drawn == {task.id for name, task in TASKS.items() if starting_states(name)}


def test_without_a_task_the_seed_draws_one(make_fake_env):
    env = make_fake_env(None, states=trace_start)
    ids = [start(env, seed)["task_id"].item() for seed in range(60)]
    assert [start(env, seed)["task_id"].item() for seed in range(60)] == ids
    assert len(set(ids)) > 20
    env.set_task("open_drawer")
    assert {start(env, seed)["task_id"].item() for seed in range(5)} == {14}


def test_sentences_and_instructions(make_fake_env):
    words = [f"push it in number {i}" for i in range(4)]
    env = make_fake_env(states=trace_start, sentences={"close_drawer": words})
    said = []
    for seed in range(20):
        start(env, seed)
        said.append(env.instruction)
    assert set(said) == set(words)
    start(env, 7)
    assert env.instruction == said[7]
    env.set_instruction("open the drawer")
    start(env, 7)
    assert env.instruction == "open the drawer"
    env.set_instruction(None)
    start(env, 7)
    assert env.instruction == said[7]
    env.set_task("open_drawer")
    start(env, 7)
    assert env.instruction == TASKS["open_drawer"].instruction


def test_the_next_subtask_of_a_chain_starts_where_the_last_one_ended(make_fake_env):
    env = make_fake_env("turn_on_led", states=trace_start, chunk_size=8, horizon=2)
    start(env, 9)
    for _ in range(2):
        end = env.step(chunk())["next"]
    assert flags(end) == {"done", "truncated"}
    data = env.continue_chain("close_drawer")
    assert len(env.simulator.resets) == 1
    assert not flags(data)
    assert set(data.keys(True, True)) == set(env.reset().keys(True, True))
    assert torch.equal(data["observation", "state"], end["observation", "state"])
    assert (data["task_id"].item(), data["episode_seed"].item()) == (15, 9)


def test_the_oracle_compares_with_the_start_of_the_subtask(make_fake_env):
    """0.12 m from the middle of the trace are more than is left."""
    env = make_fake_env("turn_on_led", states=trace_start, chunk_size=30)
    env.reset()
    env.step(chunk(30))
    env.continue_chain("close_drawer", "shut it")
    step = env.step(chunk(30))["next"]
    assert env.instruction == "shut it"
    assert not step["success"].item()
    env.reset()
    assert (env.task.name, env.instruction) == ("turn_on_led", TASKS["turn_on_led"].instruction)


def test_after_a_chain_tasks_are_drawn_again(make_fake_env):
    env = make_fake_env(None)
    drawn = [start(env, seed)["task_id"].item() for seed in range(4)]
    assert len(set(drawn)) > 1
    env.continue_chain("close_drawer", "shut it")
    assert [start(env, seed)["task_id"].item() for seed in range(4)] == drawn


def still_policy():
    def act(state):
        actions = torch.zeros(*state.shape[:-1], 8, 7)
        actions[..., -1] = 1.0
        return actions

    return TensorDictModule(
        act, in_keys=[("observation", "state")], out_keys=[("vla_action", "chunk")]
    )


def test_a_collector_plays_all_tasks_in_one_environment(make_fake_env):
    make_fake_env()
    made = []

    class Counting(CalvinFactory):
        def __call__(self, episode):
            made.append(super().__call__(episode))
            return made[-1]

    factory = Counting("train", states=trace_start, image_size=None, chunk_size=8, horizon=6)
    episodes = [
        Episode("close_drawer", 1),
        Episode("turn_on_led", 2, "switch the lamp"),
        Episode("close_drawer", 3),
    ]
    with EpisodeCollector(factory, still_policy(), workers=0) as collector:
        batch = collector.collect(episodes, deterministic=True)
    assert len(made) == 1
    assert batch["collector", "traj_ids"].tolist() == [0] * 5 + [1] * 6 + [2] * 5
    ends = batch["next", "done"].flatten()
    assert batch["next", "success"][ends].flatten().tolist() == [True, False, True]
    assert batch["task_id"][ends].flatten().tolist() == [15, TASKS["turn_on_led"].id, 15]


def test_the_factory_is_picklable_and_names_its_scene():
    factory = CalvinFactory("train", scene="B", states=trace_start, chunk_size=8)
    again = pickle.loads(pickle.dumps(factory))
    assert again == factory
    assert {again.environment_of(Episode(task, 0)) for task in TASKS} == {"B"}
