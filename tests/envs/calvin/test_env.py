"""CalvinEnv's own logic on a recorded episode: specs, seeds, tasks, words, and how it ends."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch
from fake_calvin import LENGTH, TRACE, trace_start
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.envs import check_env_specs

from rftf_torchrl.envs import CalvinEnv, Episode, EpisodeCollector
from rftf_torchrl.envs.calvin import (
    TASKS,
    CalvinFactory,
    default_states,
    initial_scene,
    initial_states,
    state_vector,
)


def start(env, seed):
    return env.reset(TensorDict({"episode_seed": torch.tensor([seed])}))


def chunk(size=8, gripper=1.0):
    actions = torch.zeros(size, 7)
    actions[:, -1] = gripper
    return TensorDict({("vla_action", "chunk"): actions})


def flags(step):
    """The flags that are set."""
    names = ("success", "done", "terminated", "truncated", "crashed")
    return {name for name in names if step[name].item()}


def seen(frame, privileged=True):
    state = state_vector(TRACE["robot_obs"][frame], TRACE["scene_obs"][frame], "D", privileged)
    return torch.from_numpy(state)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"image_size": None}, {"state": ((53,), torch.float32)}),
        (
            {"image_size": 6},
            {"state": ((11,), torch.float32), "image": ((3, 6, 6), torch.uint8)},
        ),
        (
            {"image_size": None, "wrist_size": 4},
            {"state": ((11,), torch.float32), "wrist_image": ((3, 4, 4), torch.uint8)},
        ),
        (
            {"image_size": 6, "wrist_size": 4, "depth": True, "chunk_size": 3},
            {
                "state": ((11,), torch.float32),
                "image": ((3, 6, 6), torch.uint8),
                "wrist_image": ((3, 4, 4), torch.uint8),
                "depth": ((1, 6, 6), torch.float32),
                "wrist_depth": ((1, 4, 4), torch.float32),
            },
        ),
    ],
)
def test_specs_keys_shapes_and_dtypes(make_fake_env, arguments, expected):
    env = make_fake_env(**arguments)
    check_env_specs(env)
    data = env.rollout(2)
    size = arguments.get("chunk_size")
    expected = {("observation", key): value for key, value in expected.items()} | {
        ("instruction", "tokens"): ((16,), torch.int64),
        ("instruction", "mask"): ((16,), torch.bool),
        "task_id": ((1,), torch.int64),
        "episode_seed": ((1,), torch.int64),
        "success": ((1,), torch.bool),
        "crashed": ((1,), torch.bool),
        "executed": ((size or 1,), torch.bool),
        "done": ((1,), torch.bool),
        "terminated": ((1,), torch.bool),
        "truncated": ((1,), torch.bool),
    }

    def described(data):
        return {k: (tuple(v.shape[1:]), v.dtype) for k, v in data.items(True, True)}

    assert described(data["next"]) == expected | {"reward": ((1,), torch.float32)}
    action = "action" if size is None else ("vla_action", "chunk")
    shape = (7,) if size is None else (3, 7)
    assert described(data.exclude("next")) == expected | {action: (shape, torch.float32)}
    assert data["task_id"].unique().tolist() == [15]


def test_success_in_the_middle_of_a_chunk(make_fake_env):
    """The trace of 34 actions ends with the success: the second of the fifth chunk's eight."""
    env = make_fake_env(chunk_size=8)
    data = env.rollout(20, policy=lambda td: td.update(chunk()))
    assert LENGTH == 34
    assert data.batch_size == (5,)
    assert data["next", "reward"].flatten().tolist() == [0, 0, 0, 0, 1]
    assert data["next", "executed"].sum(1).tolist() == [8, 8, 8, 8, 2]
    assert data["next", "executed"][-1].tolist() == [True] * 2 + [False] * 6
    assert flags(data["next"][-1]) == {"success", "done", "terminated"}
    frames = [0, 8, 16, 24, 32, 34]
    assert torch.equal(data["observation", "state"], torch.stack([seen(f) for f in frames[:-1]]))
    assert torch.equal(
        data["next", "observation", "state"], torch.stack([seen(f) for f in frames[1:]])
    )


def test_pictures_are_drawn_once_a_decision_and_after_the_chunk(make_fake_env):
    env = make_fake_env(chunk_size=8, image_size=2, wrist_size=2, depth=True)
    data = env.rollout(2, policy=lambda td: td.update(chunk()))
    kinds = ("picture", "depth", "wrist_picture", "wrist_depth")
    assert env.simulator.drawn == [(kind, frame) for frame in (0, 8, 16) for kind in kinds]
    for key in ("image", "depth", "wrist_image", "wrist_depth"):
        assert data["observation", key].flatten(1).unique(dim=1).tolist() == [[0], [8]]
        assert data["next", "observation", key].flatten(1).unique(dim=1).tolist() == [[8], [16]]


@pytest.mark.parametrize(
    ("arguments", "decisions"),
    [({}, 360), ({"chunk_size": 8}, 45), ({"chunk_size": 7}, 52), ({"horizon": 3}, 3)],
)
def test_the_horizon_truncates(make_fake_env, arguments, decisions):
    env = make_fake_env("open_drawer", **arguments)
    data = env.rollout(400)
    assert env.horizon == decisions == len(data)
    assert data["next", "truncated"].flatten().nonzero().flatten().tolist() == [decisions - 1]
    assert flags(data["next"][-1]) == {"done", "truncated"}
    assert data["next", "executed"].all()


def test_success_in_the_last_decision_is_a_termination(make_fake_env):
    env = make_fake_env(horizon=1, chunk_size=40)
    step = env.step(env.reset().update(chunk(40)))["next"]
    assert flags(step) == {"success", "done", "terminated"}


def test_a_crash_is_neither_failure_nor_termination(make_fake_env, caplog):
    env = make_fake_env(chunk_size=8, image_size=2)
    data = env.step(env.reset().update(chunk()))["next"]
    env.simulator.crash_at = 11
    step = env.step(data.update(chunk()))["next"]
    assert flags(step) == {"done", "truncated", "crashed"}
    assert step["executed"].tolist() == [True] * 3 + [False] * 5
    assert (step["observation"] == data["observation"]).all()
    assert step["reward"].item() == 0.0
    assert caplog.messages == ["the state is not finite"]
    assert not env.step(env.reset().update(chunk()))["next", "crashed"].any()


def test_a_dead_simulator_is_replaced_at_the_next_reset(make_fake_env, caplog):
    env = make_fake_env()
    dead = env.simulator
    dead.broken = True
    data = start(env, 5)
    assert (dead.closed, env.simulator.closed) == (True, False)
    assert env.simulator is not dead
    assert len(env.simulator.resets) == 1
    assert torch.equal(data["observation", "state"], seen(0))
    assert caplog.messages == ["no physics server; a new simulator takes its place"]


def test_the_arm_is_clipped_and_the_gripper_takes_a_sign(make_fake_env):
    env = make_fake_env(chunk_size=4)
    actions = torch.tensor([[2.0, -3, 0.5, 0, 0, 0, g] for g in (0.0, -0.0, 0.3, -0.1)])
    env.step(env.reset().update({("vla_action", "chunk"): actions}))
    taken = np.stack(env.simulator.actions)
    assert taken.dtype == np.float64
    assert taken[:, :6].tolist() == [[1, -1, 0.5, 0, 0, 0]] * 4
    assert taken[:, 6].tolist() == [1, 1, 1, -1]
    assert actions[0, 0] == 2.0


@pytest.mark.parametrize(
    ("size", "index", "value", "where"),
    [
        (None, (6,), 0.5, "action[6]"),
        (4, (2, 6), 0.0, "('vla_action', 'chunk')[2, 6]"),
        (4, (0, 6), -2.0, "('vla_action', 'chunk')[0, 6]"),
    ],
)
def test_the_strict_gripper(make_fake_env, size, index, value, where):
    env = make_fake_env(chunk_size=size, gripper="strict")
    data = env.reset()
    actions = torch.zeros(7) if size is None else torch.zeros(size, 7)
    actions[..., -1] = -1.0
    env.step(data.clone().set(env.action_key, actions))
    actions[index] = value
    message = (
        f"{where}, the gripper, must be 1 (open) or -1 (close), got {value}; gripper='sign' takes "
        "any number"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.step(data.clone().set(env.action_key, actions))


@pytest.mark.parametrize(("size", "key"), [(None, "action"), (5, "('vla_action', 'chunk')")])
def test_an_action_that_is_not_finite(make_fake_env, size, key):
    env = make_fake_env(chunk_size=size)
    start(env, 8)
    action = torch.full((7,) if size is None else (size, 7), float("nan"))
    message = f"{key}: the action for task 'close_drawer', episode seed 8, decision 0 is not finite"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.step(TensorDict().set(env.action_key, action))


@pytest.mark.parametrize(
    ("size", "key", "given", "expected"),
    [
        (None, "action", (14,), (7,)),
        (None, "action", (1, 7), (7,)),
        (None, "action", (6,), (7,)),
        (7, "('vla_action', 'chunk')", (7, 6), (7, 7)),
        (8, "('vla_action', 'chunk')", (4, 7), (8, 7)),
        (8, "('vla_action', 'chunk')", (16, 7), (8, 7)),
        (8, "('vla_action', 'chunk')", (7, 8), (8, 7)),
        (8, "('vla_action', 'chunk')", (56,), (8, 7)),
    ],
)
def test_an_action_of_another_shape(make_fake_env, size, key, given, expected):
    """Reshaped, they would be other actions than were meant, or more or fewer."""
    env = make_fake_env(chunk_size=size)
    start(env, 8)
    message = (
        f"{key}: the action for task 'close_drawer', episode seed 8, decision 0 has the shape "
        f"{given}, and the environment's action spec has {expected}: give each decision as many "
        "actions, of as many numbers, as the spec has"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.step(TensorDict().set(env.action_key, torch.ones(given)))
    assert env.simulator.actions == []


def test_episodes_start_at_default_training_states(make_fake_env):
    env = make_fake_env()
    start(env, 4)
    expected = default_states("train", "D")("close_drawer", 4)
    assert all(
        np.array_equal(*pair) for pair in zip(env.simulator.resets[0], expected, strict=True)
    )


class Bank:
    """Like a StateBank: an object with a method ``draw``."""

    draw = staticmethod(trace_start)


@pytest.mark.parametrize("states", [trace_start, Bank()])
def test_states_as_a_function_or_as_an_object_that_draws(make_fake_env, states):
    env = make_fake_env(states=states)
    env.reset()
    (reset,) = env.simulator.resets
    assert np.array_equal(reset[0], TRACE["robot_obs"][0])
    assert np.array_equal(reset[1], TRACE["scene_obs"][0])


def test_training_refuses_the_benchmarks_scenes_whoever_gives_them(make_fake_env):
    def cheating(task, seed):
        return initial_scene(initial_states()[7])

    with pytest.raises(ValueError, match="is the benchmark's initial scene 7: it must not be"):
        make_fake_env(states=cheating).reset()
    env = make_fake_env(states=cheating, split="test")
    env.reset()
    assert len(env.simulator.resets) == 1


@pytest.mark.parametrize("scene", ["A", "B", "C", "D"])
def test_training_and_test_starts_are_seeded_and_disjoint(scene):
    train = default_states("train", scene)
    drawn = [train("close_drawer", seed)[1] for seed in range(20)]
    assert np.array_equal(drawn[3], train("close_drawer", 3)[1])
    assert len(np.unique(drawn, axis=0)) == 20
    assert {vector[1] for vector in drawn} == {0.22}
    if scene == "D":
        test = [default_states("test")("close_drawer", seed)[1] for seed in range(20)]
        assert {vector[1] for vector in test} == {0.22}
        assert min(np.abs(a - b).max() for a in drawn for b in test) > 1e-6


def test_starts_that_can_not_be():
    message = (
        "no chain starts with 'stack_block', as it needs a block in the hand, on another one or in "
        "the drawer: give states=, a StateBank, which has states from the middle of chains"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        default_states("train")("stack_block", 0)
    message = (
        "the benchmark's initial scenes are right for scene D only, not for A: give states=, or "
        "use split='train'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        default_states("test", "A")
    with pytest.raises(ValueError, match=r"^split must be 'train' or 'test', got 'all'$"):
        default_states("all")


def test_successive_resets_go_through_the_seeds_sequence(make_fake_env):
    env = make_fake_env(seed=3)
    seeds = [env.reset()["episode_seed"].item() for _ in range(3)]
    env.set_seed(3)
    assert [env.reset()["episode_seed"].item() for _ in range(3)] == seeds
    assert len(set(seeds)) == 3
    assert make_fake_env(seed=4).reset()["episode_seed"].item() != seeds[0]


def test_one_environment_plays_any_task(make_fake_env):
    env = make_fake_env(states=trace_start)
    usual = start(env, 1)
    env.set_task("turn_on_led")
    other = start(env, 1)
    assert (usual["task_id"].item(), other["task_id"].item()) == (15, TASKS["turn_on_led"].id)
    assert env.instruction == "switch the green lamp on"
    assert (usual["instruction", "tokens"] != other["instruction", "tokens"]).any()
    assert len({id(env.simulator)}) == 1


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


@pytest.mark.parametrize("name", ["image_size", "wrist_size", "chunk_size", "horizon"])
def test_counts_must_be_positive(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
        CalvinEnv("open_drawer", **{name: 0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "fly"}, f"unknown CALVIN task 'fly'; choose from {', '.join(TASKS)}"),
        ({"scene": "E"}, "scene must be 'A', 'B', 'C' or 'D', got 'E'"),
        ({"split": "all"}, "split must be 'train' or 'test', got 'all'"),
        ({"gripper": "soft"}, "gripper must be 'sign' or 'strict', got 'soft'"),
        (
            {"image_size": None, "depth": True},
            "depth needs a camera: give image_size or wrist_size",
        ),
    ],
)
def test_bad_arguments(make_fake_env, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_fake_env(**arguments)


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
