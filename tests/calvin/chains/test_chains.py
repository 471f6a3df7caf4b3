"""The benchmark's loop over chains, with fake simulators and with the real one."""

import logging
import re
import time
from functools import partial

import pytest
import torch
from _chain_fakes import ChainPolicy, FakeChainEnv, FakeSimulator, Noisy, Worker, make_env, needs
from tensordict.nn import TensorDictModule

from rftf_torchrl import (
    Chain,
    SimulatorCrashedError,
    TooManyCrashesError,
    benchmark_sequences,
    evaluate_chains,
    initial_scene,
    training_scene,
    training_sequences,
)
from rftf_torchrl.calvin.chains.stages import PolicyStage, play_chain
from rftf_torchrl.calvin.tasks import TASKS
from rftf_torchrl.envs.episodes import LocalActor
from rftf_torchrl.keys import CHUNK

pytestmark = pytest.mark.slow

CHAINS = benchmark_sequences(12)
SCENES = [initial_scene(chain.initial_state)[1] for chain in CHAINS]
STEPS = 60


def evaluate(**changes):
    arguments = {
        "controller": Worker,
        "make_env": FakeSimulator,
        "chains": 12,
        "steps_per_subtask": STEPS,
        "workers": 0,
    }
    return evaluate_chains(**{**arguments, **changes})


def evaluate_policy(policy=None, **changes):
    return evaluate(
        policy=policy or ChainPolicy(), controller=None, **{"make_env": make_env} | changes
    )


def transcribed(chain, make_controller=Worker, limit=STEPS):
    """The loop of CALVIN's ``evaluate_policy.py``, written down once more."""
    simulator, controller = FakeSimulator(), make_controller()
    simulator.reset(*initial_scene(chain.initial_state))
    done, steps = 0, []
    for task in chain.tasks:
        start_info = simulator.info
        controller.start(task, simulator)
        success = False
        taken = 0
        for _ in range(limit):
            simulator.step(controller.action(simulator))
            taken += 1
            if len(simulator.achieved(start_info, {task})) > 0:
                success = True
                break
        steps.append(taken)
        if not success:
            break
        done += 1
    return done, tuple(steps)


@pytest.mark.parametrize("limit", [STEPS, 15])
def test_a_controller_is_evaluated_as_in_the_official_loop(limit):
    report = evaluate(steps_per_subtask=limit)
    expected = [transcribed(chain, limit=limit) for chain in CHAINS]
    assert [(r.length, r.steps) for r in report.results] == expected
    assert [r.index for r in report.results] == list(range(12))
    assert [r.tasks for r in report.results] == [chain.tasks for chain in CHAINS]
    assert 0 < report.average_length < 5


def test_one_reset_a_chain_and_none_between_its_tasks():
    simulators = []

    def make():
        simulators.append(FakeSimulator())
        return simulators[-1]

    evaluate(make_env=make)
    (simulator,) = simulators
    assert [scene.tolist() for scene in simulator.resets] == [scene.tolist() for scene in SCENES]
    assert simulator.closed


def test_other_scenes_get_fresh_initial_scenes():
    simulator = FakeSimulator()
    report = evaluate(make_env=lambda: simulator, scene="B", chains=2)
    fresh = training_scene(CHAINS[1].initial_state, 1, "B")[1]
    assert simulator.resets[1].tolist() == fresh.tolist()
    assert "scene B" in report.protocol


def test_chains_of_ones_own_get_fresh_initial_scenes_in_scene_d():
    simulator = FakeSimulator()
    own = training_sequences(4, 2)
    report = evaluate(make_env=lambda: simulator, chains=[CHAINS[0], *own])
    fresh = [training_scene(c.initial_state, i, "D")[1] for i, c in enumerate(own, start=1)]
    assert [s.tolist() for s in simulator.resets] == [s.tolist() for s in [SCENES[0], *fresh]]
    assert "other chains than the benchmark's" in report.protocol


def test_success_counts_inside_a_chunk_and_not_after_the_limit():
    chain = CHAINS[0]
    need = needs(chain.tasks[0], SCENES[0])
    assert need % 5, "the test needs a success in the middle of a chunk"
    always = partial(ChainPolicy, chunk_size=5, chance=1.0)
    build = partial(make_env, chunk_size=5)
    enough = evaluate_policy(always(), make_env=build, chains=[chain], steps_per_subtask=need)
    assert enough.results[0].steps[0] == need
    assert enough.results[0].length >= 1
    few = evaluate_policy(always(), make_env=build, chains=[chain], steps_per_subtask=need - 1)
    assert few.results[0].steps == (need - 1,)
    assert few.results[0].length == 0


def test_the_policy_is_reset_at_the_start_of_each_task_and_hears_its_first_sentence():
    env, policy = FakeChainEnv(), ChainPolicy(chance=1.0)
    sentences = {task: [f"do {task}", "never said"] for task in TASKS}
    result = play_chain(PolicyStage(env, LocalActor(policy), STEPS, True, sentences), 0, CHAINS[0])
    assert result.length == 5
    assert policy.resets == 5
    assert policy.module.decisions == -(-result.steps[-1] // 4)
    assert env.spoken == [f"do {task}" for task in CHAINS[0].tasks]


def test_without_sentences_the_environment_chooses_its_own():
    env = FakeChainEnv()
    play_chain(
        PolicyStage(env, LocalActor(ChainPolicy(chance=1.0)), STEPS, True, None), 0, CHAINS[0]
    )
    assert env.spoken == [None] * 5


def test_a_horizon_that_ends_a_task_early_is_an_error():
    message = (
        f"the environment ended task {CHAINS[0].tasks[0]!r} after 8 control steps, and the "
        "evaluation grants 60: give it a larger horizon"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate_policy(ChainPolicy(chance=0.0), make_env=partial(make_env, horizon=2))


@pytest.mark.parametrize(("workers", "error"), [(0, ValueError), (1, RuntimeError)])
def test_a_policy_of_another_chunk_size_is_an_error(workers, error):
    message = (
        "the policy's ('vla_action', 'chunk') has shape (5, 7), and the environment of task "
        f"{CHAINS[0].tasks[0]!r} takes (4, 7) = (chunk_size, action_dim): build both with the same "
        "sizes; in the recipes, env.chunk_size is that of the cloned policy."
    )
    with pytest.raises(error, match=re.escape(message)):
        evaluate_policy(ChainPolicy(chunk_size=5), workers=workers)


def test_results_do_not_depend_on_the_number_of_workers():
    alone = evaluate_policy(steps_per_subtask=20, deterministic=False)
    assert 0 < alone.average_length < 5
    for workers in (1, 3):
        assert evaluate_policy(steps_per_subtask=20, workers=workers).results == alone.results


def served(**changes):
    """Chains that one policy in this process decides, without a memory."""
    policy = TensorDictModule(Noisy(), in_keys=[("observation", "state")], out_keys=[CHUNK])
    return evaluate_policy(policy, **{"serve": True, "workers": 2, "batch": 1} | changes)


def test_a_served_policy_plays_what_copies_of_it_play(tmp_path):
    alone = served(serve=False, workers=0, steps_per_subtask=20, deterministic=False)
    path, played = tmp_path / "chains.jsonl", []
    for workers in (1, 2):
        found = served(workers=workers, steps_per_subtask=20, deterministic=False, resume_path=path)
        assert found.results == alone.results
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:8]), encoding="utf-8")
    resumed = served(
        steps_per_subtask=20, deterministic=False, resume_path=path, on_chain=played.append
    )
    assert resumed.results == alone.results
    assert len(played) == 5


def test_a_served_policy_decides_for_several_simulators_at_once():
    sizes = []

    class Counted(Noisy):
        def forward(self, state):
            sizes.append(len(state))
            if 2 not in sizes:
                time.sleep(0.1)  # while the other simulator starts
            return super().forward(state)

    policy = TensorDictModule(Counted(), in_keys=[("observation", "state")], out_keys=[CHUNK])
    report = evaluate_policy(policy, serve=True, workers=2, wait=60.0)
    assert set(sizes) == {1, 2}
    assert len(report.results) == 12


@pytest.mark.parametrize("trouble", ["crash", "exit"])
def test_a_simulator_that_dies_while_a_policy_is_served_is_replaced(trouble, tmp_path, caplog):
    build = partial(make_env, trouble_at=SCENES[3], trouble=trouble)
    once = partial(build, marker=str(tmp_path / "died"))
    whole = served(serve=False, workers=0)
    assert served(make_env=once).results == whole.results
    assert served(make_env=build).crashed == (3,)
    why = "died with exit code 3"
    if trouble == "crash":
        task = CHAINS[3].tasks[0]
        why = f"crashed: the simulator crashed in task {task!r}"
    again = f"a simulator process {why}; what it was playing begins again"
    lost = f"a simulator process {why}; part 3 is not counted"
    assert [record.getMessage() for record in caplog.records] == [again, again, lost]


def test_a_policy_with_a_memory_is_not_served():
    message = (
        "the policy has a method reset(), so it remembers its earlier decisions, but a served "
        "policy decides for several simulators in turn: let it read what was before from the "
        "observation, as ObservationHistory writes it, or set collector.policy=copy"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate_policy(serve=True, workers=1)


def test_the_noise_depends_on_the_seed_and_the_chain_alone():
    first = evaluate_policy(steps_per_subtask=20)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert evaluate_policy(steps_per_subtask=20).results == first.results
    assert torch.equal(torch.get_rng_state(), state)
    assert evaluate_policy(steps_per_subtask=20, seed=1).results != first.results
    assert evaluate_policy(steps_per_subtask=20, chains=5).results == first.results[:5]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_chain_whose_simulator_crashes_once_is_played_again(workers, tmp_path):
    build = partial(
        FakeSimulator, trouble="crash", trouble_at=SCENES[3], marker=str(tmp_path / "crashed")
    )
    report = evaluate(make_env=build, workers=workers)
    assert report.results == evaluate().results
    assert report.crashed == ()
    assert (tmp_path / "crashed").exists()


@pytest.mark.parametrize(
    ("trouble", "workers"), [("crash", 0), ("crash", 2), ("exit", 2), ("sleep", 1)]
)
def test_a_chain_that_crashes_twice_is_reported_and_is_no_failure(trouble, workers, caplog):
    build = partial(FakeSimulator, trouble=trouble, trouble_at=SCENES[3])
    seen = []
    with caplog.at_level(logging.WARNING):
        report = evaluate(make_env=build, workers=workers, timeout=1.5, on_chain=seen.append)
    whole = evaluate()
    assert report.crashed == (3,)
    assert report.results == tuple(r for r in whole.results if r.index != 3)
    assert "1 crashed chains are not counted" in report.protocol
    assert "chains crashed twice and are not counted: 3." in report.markdown()
    assert seen.count(None) == 1
    assert len(seen) == 12
    assert len(caplog.records) == 2


def test_a_crash_that_the_environment_reports_is_no_failure():
    build = partial(make_env, trouble="crash", trouble_at=SCENES[3])
    assert evaluate_policy(make_env=build).crashed == (3,)


def test_workers_that_keep_dying_end_the_evaluation():
    build = partial(FakeSimulator, trouble="exit", trouble_at=SCENES[3])
    message = (
        "a simulator process died with exit code 3 and no restart is left. Look at the "
        "simulator's own log, or raise max_restarts."
    )
    with pytest.raises(TooManyCrashesError, match=f"^{re.escape(message)}$"):
        evaluate(make_env=build, workers=1, max_restarts=1)


def test_a_programming_error_in_a_worker_is_shown():
    build = partial(FakeSimulator, trouble="raise", trouble_at=SCENES[3])
    with pytest.raises(RuntimeError, match="KeyError: 'the fake is broken'"):
        evaluate(make_env=build, workers=1)


def test_an_evaluation_that_was_stopped_is_resumed(tmp_path):
    path = tmp_path / "chains.jsonl"
    seen = []

    def stop_after_five(result):
        seen.append(result)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(resume_path=path, on_chain=stop_after_five)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"index": 5, "tas')
    again = []
    report = evaluate(resume_path=path, on_chain=again.append)
    assert report.results == evaluate().results
    assert [result.index for result in again] == list(range(5, 12))
    played = []
    started = []
    resumed = evaluate(
        resume_path=path, on_chain=played.append, on_start=lambda: started.append("the same")
    )
    assert resumed.results == report.results
    assert played == []
    with pytest.raises(ValueError, match="steps_per_subtask"):
        evaluate(resume_path=path, steps_per_subtask=7, on_start=lambda: started.append("another"))
    assert started == ["the same"]


def test_crashed_chains_are_played_when_resumed(tmp_path):
    trouble = ["crash"]

    def build():
        return FakeSimulator(trouble[0], SCENES[3])

    path, played = tmp_path / "chains.jsonl", []
    assert evaluate(make_env=build, resume_path=path).crashed == (3,)
    trouble[0] = None
    report = evaluate(make_env=build, resume_path=path, on_chain=played.append)
    assert [result.index for result in played] == [3]
    assert report.crashed == ()
    assert report.results == evaluate().results


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"steps_per_subtask": 61}, "steps_per_subtask"),
        ({"seed": 1}, "seed"),
        ({"chains": 11}, "chains"),
        ({"chains": CHAINS[::-1]}, "chains_digest"),
        ({"controller": partial(Worker, "open_drawer")}, "controller"),
    ],
)
def test_another_evaluation_may_not_add_to_the_file(change, name, tmp_path):
    path = tmp_path / "chains.jsonl"
    evaluate(resume_path=path)
    with pytest.raises(ValueError, match=rf"chains\.jsonl holds chains with {name} = "):
        evaluate(resume_path=path, **change)


def test_other_weights_may_not_add_to_the_file(tmp_path):
    path = tmp_path / "chains.jsonl"
    evaluate_policy(resume_path=path)
    with pytest.raises(ValueError, match=r"chains\.jsonl holds chains with policy = "):
        evaluate_policy(ChainPolicy(chance=0.7), resume_path=path)


BAD = [
    ({"controller": None}, "got neither a policy nor a controller; give one of them"),
    ({"policy": ChainPolicy()}, "got a policy and a controller; give one of them"),
    ({"chains": []}, "there is no chain to evaluate; give at least one"),
    ({"chains": 0}, "count is 0; expected 1 to 1000, as the benchmark has no more."),
    (
        {"chains": [Chain(CHAINS[0].initial_state, ())]},
        "chain 0 has no task; expected at least one",
    ),
    ({"steps_per_subtask": 0}, "steps_per_subtask must be 1 or more, got 0"),
    ({"workers": -1}, "workers must be 0 or more, got -1"),
    ({"seed": -1}, "seed must be 0 or more, got -1"),
    ({"timeout": 0}, "timeout must be a positive number of seconds, got 0"),
    ({"scene": "E"}, "scene must be 'A', 'B', 'C' or 'D', got 'E'"),
    (
        {"sentences": {"open_drawer": ["open"]}},
        f"sentences has none for the task {CHAINS[0].tasks[0]!r} of chain 0",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate(**change)


def test_unknown_task():
    chain = Chain(CHAINS[0].initial_state, ("open_drawer", "fly"))
    with pytest.raises(ValueError, match="unknown CALVIN task 'fly'; choose from"):
        evaluate(chains=[chain])


def test_the_error_of_a_simulator_reaches_the_caller_of_a_single_chain():
    simulator = FakeSimulator("crash", SCENES[0])
    with pytest.raises(SimulatorCrashedError, match="the simulator crashed in task"):
        play_chain(
            PolicyStage(FakeChainEnv(simulator), LocalActor(ChainPolicy()), 9, True, None),
            0,
            CHAINS[0],
        )
