"""A recording that stopped early is noticed by the next run; no test scene gets into one."""

import json
import re
import shutil
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from tiny import CALVIN, TINY

from rftf_torchrl import (
    CalvinDataset,
    CalvinOptions,
    ConfigError,
    EnvConfig,
    RecordedChain,
    RecordedTask,
    Recording,
    StateBank,
    derive_seed,
    initial_scene,
    initial_states,
    load_demonstrations,
    make_simulator,
    training_scene,
    training_sequences,
    write_synthetic_demonstrations,
)
from rftf_torchrl.configs.record import cloned_by

pytestmark = pytest.mark.recipe


def recorded_task(task, seed):
    state = training_sequences(seed, 1)[0].initial_state
    robot_obs, scene_obs = training_scene(state, seed)
    actions = np.zeros((2, 7))
    actions[:, 6] = 1.0
    return RecordedTask(task, 0, "D", np.stack([robot_obs] * 3), np.stack([scene_obs] * 3), actions)


def recorded_chain(tasks):
    """Its failures took no step."""
    tasks = list(tasks)
    return RecordedChain(tasks, sum(len(task.actions) for task in tasks))


@pytest.fixture
def recording(monkeypatch):
    """A function that replaces the simulators: each job is a list of names, or raises."""
    first_seeds = {}

    def play(*chains):
        def record_chains(jobs, **_):
            if not jobs:
                return
            first = first_seeds.setdefault(jobs[-1].seed, jobs[0].seed)
            skipped = jobs[0].seed - first
            for number in range(skipped, skipped + len(jobs)):
                chain = chains[min(number, len(chains) - 1)]
                if chain is KeyboardInterrupt:
                    raise KeyboardInterrupt
                yield recorded_chain(recorded_task(task, number) for task in chain)

        monkeypatch.setattr("rftf_torchrl.calvin.recording.record_chains", record_chains)

    return play


@pytest.fixture
def run(configure, tmp_path, monkeypatch):
    monkeypatch.setattr("rftf_torchrl.calvin.recording.require_calvin_env", lambda: None)
    return configure(*CALVIN, f"output={tmp_path}", name="calvin")


BOTH = ["open_drawer", "turn_off_lightbulb"]


def files_of(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {file.relative_to(folder): file.read_bytes() for file in files}


def test_calvin_goes_on_after_ctrl_c(recording, run, tmp_path):
    """With what it would have recorded without, and the steps of both parts."""
    from rftf_torchrl.recipes.collect_demos import collect

    training = Path(run.output, "calvin", "training")
    chains = [BOTH, BOTH[:1], BOTH]
    options = {**run.env.options, "demo_chains": 3}
    longer = replace(
        run, env=replace(run.env, options=options), demos=replace(run.demos, per_task=2)
    )
    recording(*chains)
    whole = replace(longer, output=str(tmp_path / "whole"))
    steps = collect(whole)

    recording(BOTH, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        collect(longer)
    assert not CalvinDataset(training.parent).complete
    recording(*chains)
    assert collect(longer) == steps > 0
    assert collect(longer) == steps, "also where nothing is left to record"
    demos = load_demonstrations(Path(run.output, "demos"))
    assert demos.simulator_steps == 2 * sum(map(len, chains))
    assert files_of(training) == files_of(Path(whole.output, "calvin", "training"))
    assert len(load_demonstrations(Path(run.output, "demos")).episodes) == 4


def test_the_starts_go_on_after_ctrl_c(run, monkeypatch, tmp_path):
    """With the chains that are missing, and with other tasks to start from."""
    from rftf_torchrl.calvin import recording as calvin_recording
    from rftf_torchrl.recipes.collect_demos import collect

    record_chains, walked = expert_with_tasks("open_drawer", RARE)
    rare = replace(run, env=replace(run.env, tasks=["open_drawer", RARE]))
    starts = derive_seed(0, "chains", "states") % 2**31

    def interrupted(jobs, **_):
        for played, tasks in enumerate(record_chains(jobs)):
            if played == 2 and jobs[0].seed == starts:
                raise KeyboardInterrupt
            yield tasks

    monkeypatch.setattr(calvin_recording, "record_chains", record_chains)
    collect(replace(rare, output=str(tmp_path / "whole")))
    monkeypatch.setattr(calvin_recording, "record_chains", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(rare)
    walked.clear()
    monkeypatch.setattr(calvin_recording, "record_chains", record_chains)
    collect(replace(rare, ppo=replace(rare.ppo, tasks=[RARE])))
    assert starts not in {job.seed for job in walked}, "what was played is not played again"
    file, whole = (Path(folder, "states.npz") for folder in (run.output, tmp_path / "whole"))
    bank, expected = StateBank.load(file), StateBank.load(whole)
    assert bank.count("open_drawer") == 0
    assert bank.count(RARE) == expected.count(RARE) > 0
    assert bank.simulator_steps == expected.simulator_steps
    assert not list(Path(run.output).glob("states_interrupted*"))


def test_calvin_goes_on_after_ctrl_c_within_a_chain(recording, run, monkeypatch):
    """The chain is walked again, and none of its tasks is there twice."""
    from rftf_torchrl.calvin import recording as calvin_recording
    from rftf_torchrl.recipes.collect_demos import collect

    training = Path(run.output, "calvin", "training")
    write_task, written = calvin_recording.write_task, []

    def interrupted(writer, task, sentence):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(task)
        write_task(writer, task, sentence)

    longer = replace(run, demos=replace(run.demos, per_task=2))
    recording(BOTH, BOTH)
    monkeypatch.setattr(calvin_recording, "write_task", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(longer)
    assert [span.task for span in CalvinDataset(training.parent).spans] == [*BOTH, BOTH[0]]
    monkeypatch.setattr(calvin_recording, "write_task", write_task)
    collect(longer)
    assert [span.task for span in CalvinDataset(training.parent).spans] == [*BOTH, *BOTH]
    assert len(list(training.glob("*.npz"))) == 12


def test_a_recording_does_not_go_on_with_other_settings(recording, run):
    from rftf_torchrl.recipes.collect_demos import collect

    training = Path(run.output, "calvin", "training")
    recording(BOTH, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        collect(run)
    before = files_of(training)
    options = {**run.env.options, "demo_chains": 8}
    other = replace(run, seed=5, env=replace(run.env, options=options))
    message = (
        f"{training} is a recording with seed=0, not 5; env.options.demo_chains=2, not 8. It is "
        "used, or goes on, with its own settings; move or remove it, and it is recorded again"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        collect(other)
    assert files_of(training) == before


def test_a_finished_recording_is_not_used_for_other_settings(recording, run):
    from rftf_torchrl.recipes.collect_demos import collect

    recording(BOTH, BOTH)
    collect(run)
    shutil.rmtree(Path(run.output, "demos"))
    noisy = replace(run, demos=replace(run.demos, noise=9.0))
    with pytest.raises(
        ValueError, match=r"training is a recording with demos\.noise=0.*, not 9\.0"
    ):
        collect(noisy)
    collect(run)
    assert load_demonstrations(Path(run.output, "demos")).complete


def test_calvin_may_be_used_as_it_is(recording, run):
    from rftf_torchrl.recipes.collect_demos import collect

    training = Path(run.output, "calvin", "training")
    recording(BOTH[:1], KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        collect(run)
    (training / "interrupted.txt").unlink()
    recording(BOTH, BOTH)
    collect(run)
    demos = load_demonstrations(Path(run.output, "demos"))
    assert demos.complete
    assert len(demos.episodes) == 1


def test_a_clone_of_calvin_beside_demonstrations_is_no_recording(tmp_path):
    (tmp_path / "calvin" / "calvin_models").mkdir(parents=True)
    simulator = make_simulator(EnvConfig("calvin", ["open_drawer"], image_size=None))
    found = simulator.about(tmp_path / "demos")
    assert found == "Fine-tuning and evaluation in scene D."


def expert_with_tasks(*tasks):
    """In place of the simulators: does those of a chain's tasks, and knows what it walked."""
    walked = []

    def record_chains(jobs, **_):
        for job in jobs:
            walked.append(job)
            done = (task for task in job.chain.tasks if task in tasks)
            yield recorded_chain(recorded_task(task, job.seed) for task in done)

    return record_chains, walked


RARE = "lift_red_block_drawer"


def test_chains_are_walked_until_each_task_is_there(run, monkeypatch, tmp_path):
    """Demonstrations and starts; the first chains are those of the list, whatever comes after."""
    from rftf_torchrl.recipes.collect_demos import collect

    record_chains, walked = expert_with_tasks("open_drawer", RARE)
    monkeypatch.setattr("rftf_torchrl.calvin.recording.record_chains", record_chains)
    rare = replace(run, env=replace(run.env, tasks=["open_drawer", RARE]))
    collect(rare)
    demos = load_demonstrations(Path(run.output, "demos"))
    assert {task.name for task in demos.tasks} == {"open_drawer", RARE}
    assert StateBank.load(Path(run.output, "states.npz")).count(RARE) > 0
    seeds = derive_seed(0, "chains", "training") % 2**31, derive_seed(0, "chains", "states") % 2**31
    for seed, count in zip(seeds, (2, 3), strict=True):
        chains = [job.chain for job in walked if 0 <= job.seed - seed < 2000]
        first = training_sequences(seed, count)
        assert chains[:count] == first
        assert not any(RARE in chain.tasks for chain in first)
        assert sum(RARE in chain.tasks for chain in chains[count:]) == 1


def test_cloning_and_value_model_see_permuted_colours(run, monkeypatch):
    """In the share of rows that is asked for; without, the files are what they were."""
    from rftf_torchrl.calvin.door import Calvin
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    tasks = ["open_drawer", "lift_red_block_table", "lift_blue_block_table"]
    options = {**run.env.options, "demo_chains": 40}
    run = replace(run, env=replace(run.env, tasks=tasks, options=options))
    run = replace(run, value=replace(run.value, failures=0.0, successes=False, shuffle_time=True))
    record_chains, _ = expert_with_tasks(*tasks)
    monkeypatch.setattr("rftf_torchrl.calvin.recording.record_chains", record_chains)
    collect(run)
    augment, changed = Calvin.augment, []

    def watched(self, frames, share, generator):
        permuted = augment(self, frames, share, generator)
        assert (permuted["task_id"] < 34).all()
        states = permuted["observation", "state"] != frames["observation", "state"]
        changed.append(states.flatten(1).any(1).float().mean().item())
        return permuted

    monkeypatch.setattr(Calvin, "augment", watched)
    for train in (clone, train_value):
        train(run)
        assert not changed
        train(replace(run, augment=1.0))
        assert set(changed) == {1.0}
        changed.clear()


def test_starts_of_other_settings_are_refused_where_the_demonstrations_are_gone(run, recording):
    from rftf_torchrl.recipes.collect_demos import collect

    recording(BOTH)
    collect(run)
    for name in ("demos", "calvin"):
        shutil.rmtree(Path(run.output, name))
    message = f"{Path(run.output, 'states.npz')} is a recording with seed=0, not 5. It is used,"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        collect(replace(run, seed=5))
    collect(run)


def test_further_chains_go_on_after_ctrl_c(run, monkeypatch, tmp_path):
    from rftf_torchrl.calvin import recording as calvin_recording
    from rftf_torchrl.recipes.collect_demos import collect

    record_chains, walked = expert_with_tasks("open_drawer", RARE)
    rare = replace(run, env=replace(run.env, tasks=["open_drawer", RARE]))

    def interrupted(jobs, **_):
        if len(walked) >= 2:
            raise KeyboardInterrupt
        yield from record_chains(jobs)

    monkeypatch.setattr(calvin_recording, "record_chains", record_chains)
    collect(replace(rare, output=str(tmp_path / "whole")))
    walked.clear()
    monkeypatch.setattr(calvin_recording, "record_chains", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(rare)
    monkeypatch.setattr(calvin_recording, "record_chains", record_chains)
    collect(rare)
    training = Path("calvin", "training")
    assert files_of(run.output / training) == files_of(tmp_path / "whole" / training)


def test_a_task_that_the_expert_never_does_is_named(run, monkeypatch):
    """What was recorded stays, and the next run does not go on as if it were done."""
    from rftf_torchrl.calvin import recording as calvin_recording
    from rftf_torchrl.recipes.collect_demos import collect

    training = Path(run.output, "calvin", "training")
    record_chains, _ = expert_with_tasks("open_drawer")
    monkeypatch.setattr(calvin_recording, "record_chains", record_chains)
    monkeypatch.setattr(calvin_recording, "MORE_CHAINS", 20)
    message = (
        "the expert did no turn_off_lightbulb in 2 training chains and those of the 20 after them "
        f"that have it: remove {training / 'interrupted.txt'} and leave these tasks out of "
        "env.tasks, and what was recorded is used"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        collect(run)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        collect(run)
    (training / "interrupted.txt").unlink()
    fewer = replace(run, env=replace(run.env, tasks=BOTH[:1]))
    collect(fewer)
    assert len(load_demonstrations(Path(run.output, "demos")).episodes) == 1


def test_a_task_in_which_no_episode_can_start_is_named(run, monkeypatch):
    from rftf_torchrl.calvin import recording as calvin_recording
    from rftf_torchrl.recipes.collect_demos import collect

    record_chains, _ = expert_with_tasks(*BOTH)
    monkeypatch.setattr(calvin_recording, "record_chains", record_chains)
    monkeypatch.setattr(calvin_recording, "MORE_CHAINS", 20)
    never = replace(run, ppo=replace(run.ppo, tasks=["stack_block"]))
    message = (
        "the expert did no stack_block in 3 chains and those of the 20 after them that have it, so "
        "fine-tuning could not start there: leave these tasks out of ppo.tasks"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        collect(never)
    assert not Path(run.output, "states.npz").exists()


def test_starts_of_another_recording_are_refused_at_once(run, monkeypatch):
    """Of another scene, or without a task that is fine-tuned."""
    from rftf_torchrl.calvin import recording as calvin_recording
    from rftf_torchrl.recipes.collect_demos import collect

    record_chains, walked = expert_with_tasks(*BOTH)
    monkeypatch.setattr(calvin_recording, "record_chains", record_chains)
    collect(run)
    file = Path(run.output, "states.npz")
    walked.clear()
    shared = replace(run, demos=replace(run.demos, path=str(run.folder.demonstrations)))
    options = {**run.env.options, "scene": "A"}
    message = (
        f"{file} holds states of scene D, and fine-tuning is in scene A, where furniture and "
        "blocks lie elsewhere: give the scene of the recording as env.options.scene, or record in "
        "another folder (output, demos.path)"
    )
    in_a = replace(shared, env=replace(run.env, options=options))
    demos = run.folder.demonstrations
    for use in (collect, lambda config: make_simulator(config.env).factory("train", demos)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            use(in_a)
    message = (
        f"{file} has no state in which stack_block begins: leave these tasks out of ppo.tasks, or "
        "move the file away, and the starts are recorded again"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        collect(replace(shared, ppo=replace(run.ppo, tasks=["stack_block"])))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_simulator(run.env).check_starts(demos, ["stack_block"])
    assert not walked
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"there is no {file}, so episodes have no state"):
        make_simulator(run.env).factory("train", demos)


def test_a_recording_with_other_settings_is_no_success(recording, run):
    """Neither its demonstrations nor the record of its settings change."""
    from rftf_torchrl.recipes.collect_demos import collect

    recording(BOTH, BOTH, BOTH)
    collect(run)
    before = files_of(Path(run.output))
    options = {**run.env.options, "demo_scenes": "AB", "benchmark_chains": 7}
    more = replace(run.demos, per_task=9, noise=0.5, validate=False)
    message = (
        f"{run.folder.demonstrations} was made with other settings:\n"
        "  - env.options.demo_scenes=None, and now AB\n"
        "  - seed=0, and now 3\n"
        "  - demos.per_task=1, and now 9\n"
        f"  - demos.noise={run.demos.noise}, and now 0.5\n"
        "To go on, use another output folder, or give the earlier settings."
    )
    with pytest.raises(ConfigError) as error:
        collect(replace(run, seed=3, demos=more, env=replace(run.env, options=options)))
    assert str(error.value) == message
    assert files_of(Path(run.output)) == before
    settings = Path(run.output, "collect_demos.yaml")
    kept = settings.read_bytes()
    elsewhere = shutil.copytree(run.folder.demonstrations, Path(run.output, "elsewhere"))
    collect(replace(run, seed=3, demos=replace(run.demos, path=str(elsewhere))))
    assert settings.read_bytes() == kept
    said = cloned_by(replace(run, seed=3, demos=more))
    assert (said["demos.per_task"], said["demos.noise"], said["seed"]) == (1, run.demos.noise, 3)
    collect(run)


def test_what_begins_in_a_scene_of_the_benchmark_is_not_recorded(run, monkeypatch):
    """A chain can come by one: that task is left out rather than the whole recording refused."""
    from rftf_torchrl.calvin import recording as calvin_recording
    from rftf_torchrl.recipes.collect_demos import collect

    def record_chains(jobs, **_):
        for number, _ in enumerate(jobs):
            tasks = [recorded_task(task, number) for task in BOTH]
            if number == 0:
                tasks[0].scene_obs[0] = initial_scene(initial_states()[7])[1] + 1e-3
            yield recorded_chain(tasks)

    monkeypatch.setattr(calvin_recording, "record_chains", record_chains)
    collect(run)
    spans = CalvinDataset(Path(run.output, "calvin")).spans
    assert [span.task for span in spans] == [BOTH[1], BOTH[0]]
    bank = StateBank.load(Path(run.output, "states.npz"))
    assert [bank.count(task) for task in BOTH] == [2, 3]


@pytest.mark.parametrize(("scenes", "expected"), [(None, "DDDDDDD"), ("ABC", "AABBCCC")])
def test_chains_are_spread_over_the_scenes(scenes, expected):
    from rftf_torchrl.calvin.recording import ChainRecorder

    options = CalvinOptions(demo_scenes=scenes, demo_chains=6, held_out_chains=3)
    recording = Recording(Path("x"), 1, 1, BOTH)
    recorder = ChainRecorder(EnvConfig("calvin", BOTH), options, recording, lambda split: None)
    jobs = islice(recorder.chains("training"), 7)
    assert "".join(job.scene for job in jobs) == expected
    assert [job.scene for job in islice(recorder.chains("validation"), 3)] == ["D"] * 3


@pytest.mark.metaworld
def test_meta_world_after_ctrl_c(configure, tmp_path, monkeypatch):
    from rftf_torchrl.recipes import collect_demos
    from rftf_torchrl.training import recording

    config = configure(*TINY, f"output={tmp_path}")
    record_episode, seen = recording.record_episode, []

    def interrupted(*arguments):
        if seen:
            raise KeyboardInterrupt
        seen.append(arguments)
        return record_episode(*arguments)

    monkeypatch.setattr(recording, "record_episode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect_demos.collect(config)
    monkeypatch.undo()
    message = (
        f"{tmp_path / 'demos'} holds the 1 episodes of a recording that stopped early. Move or "
        "remove the folder, and it is recorded again (resume=true does it where the folder is the "
        "run's own); or, to use what there is, write "
        '"complete": true in its demonstrations.json, and remove its digests.json'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        collect_demos.collect(config)
    steps = collect_demos.collect(replace(config, resume=True))
    assert steps == collect_demos.collect(config) > 0
    assert len(load_demonstrations(tmp_path / "demos").episodes) == 6


@pytest.mark.parametrize(
    ("recipe", "function"),
    [("train_bc", "clone"), ("train_value", "train_value"), ("value_report", "report_value")],
)
def test_no_recipe_learns_from_half_a_recording(configure, tmp_path, monkeypatch, recipe, function):
    monkeypatch.setattr(f"rftf_torchrl.recipes.{recipe}.need", lambda *_, **__: None)
    root = write_synthetic_demonstrations(tmp_path / "demos")
    index = root / "demonstrations.json"
    index.write_text(
        json.dumps({**json.loads(index.read_text(encoding="utf-8")), "complete": False}),
        encoding="utf-8",
    )
    (root / "digests.json").unlink()
    config = configure(*TINY, f"output={tmp_path}")
    with pytest.raises(ValueError, match=r"demos holds the 4 episodes of a recording that stopped"):
        getattr(import_module(f"rftf_torchrl.recipes.{recipe}"), function)(config)
