"""The whole path on CALVIN from one command, with tiny settings."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import CALVIN

from rftf_torchrl import (
    CalvinNotInstalledError,
    ChainReport,
    ConfigError,
    PeakMemory,
    StateBank,
    benchmark_sequences,
    load_demonstrations,
    read_metrics,
    require_calvin_env,
)
from rftf_torchrl.calvin.tasks import TASKS
from rftf_torchrl.digests import read_record

pytestmark = [pytest.mark.recipe, pytest.mark.calvin]


@pytest.fixture(scope="module", autouse=True)
def simulator():
    try:
        require_calvin_env()
    except CalvinNotInstalledError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def run(configure, tmp_path_factory):
    """The configuration of a finished run, and what it returned."""
    from rftf_torchrl.recipes.quickstart import quickstart

    config = configure(
        *CALVIN, "baseline=sparse", f"output={tmp_path_factory.mktemp('calvin')}", name="calvin"
    )
    with PeakMemory() as memory:
        return config, quickstart(config, memory)


def test_every_policy_plays_the_same_chains(run):
    config, results = run
    assert results["chains"].keys() == {"cloned", "RFTF", "sparse"}
    assert results["comparisons"].keys() == {"RFTF - cloned", "sparse - cloned", "RFTF - sparse"}
    for label in results["chains"]:
        report = ChainReport.load(Path(config.output, f"chains_{label}.json"))
        assert [result.index for result in report.results] == [0, 1]
        assert report.protocol.startswith(
            "NOT the official protocol: 8 steps per subtask; 2 of the"
        )
    assert read_record(Path(config.output, "results.json")) == json.loads(json.dumps(results))
    text = Path(config.output, "report.md").read_text(encoding="utf-8")
    first = text.splitlines()[2]
    assert first.startswith("NOT the official protocol: 8 steps per subtask; 2 of the")
    assert first.endswith(" Demonstrations in scene D; fine-tuning and evaluation in D.")
    assert "## RFTF against sparse" in text


def test_simulator_steps_are_counted(run):
    _, results = run
    steps = results["simulator_steps"]
    assert steps.keys() == {"demonstrations", "RFTF", "sparse"}
    assert all(count > 0 for count in steps.values())
    rollouts = results["value_model"]["simulator_steps"]
    assert 0 < rollouts < steps["RFTF"]


def test_fine_tuning_starts_where_tasks_of_other_chains_began(run):
    """The cloned policy knows the starts of its demonstrations by heart."""
    config, _ = run
    bank = StateBank.load(Path(config.output, "states.npz"))
    assert bank.scene == "D"
    assert all(bank.count(task) for task in config.env.tasks)
    assert len(bank) == sum(map(bank.count, config.env.tasks))
    files = Path(config.output, "calvin", "training").glob("episode_*.npz")
    cloned = np.stack([np.load(file)["scene_obs"] for file in files])
    distances = np.abs(cloned[:, None, 6:] - bank.scene_obs[None, :, 6:]).max(axis=-1)
    assert distances.min() > 1e-3


def test_several_scenes_are_recorded_and_the_one_of_fine_tuning_is_held_out(configure, tmp_path):
    """ABC->D in small: one chain in A, one in B; held-out demonstrations and starts in D."""
    from rftf_torchrl import CalvinDataset, load_demonstrations
    from rftf_torchrl.recipes.collect_demos import collect

    tasks = ["lift_blue_block_table", "open_drawer"]
    config = configure(
        *CALVIN,
        f"env.tasks=[{','.join(tasks)}]",
        "env.options.demo_scenes=AB",
        "demos.per_task=2",
        "demos.held_out_per_task=1",
        "env.options.held_out_chains=1",
        "env.options.start_chains=2",
        "demos.noise=0",
        f"output={tmp_path}",
        name="calvin",
    )
    collect(config)
    training = CalvinDataset(tmp_path / "calvin")
    recorded = [(training.scenes[training.episode_of(s.start)], s.task) for s in training.spans]
    assert recorded == [
        ("A", "open_drawer"),
        ("A", "lift_blue_block_table"),
        ("B", "lift_blue_block_table"),
    ]
    validation = CalvinDataset(tmp_path / "calvin", "validation")
    assert set(validation.scenes) == {"D"}
    assert [span.task for span in validation.spans] == ["lift_blue_block_table"]
    assert StateBank.load(tmp_path / "states.npz").scene == "D"
    demos = load_demonstrations(tmp_path / "demos")
    assert [episode.split for episode in demos.episodes] == ["train"] * 3 + ["test"]
    lifted = demos.select(tasks[:1]).episodes
    assert len(lifted) == 3
    height_of_blue = demos.frames["observation", "state"][:, 22]
    for episode in lifted:
        blue = height_of_blue[episode.start : episode.stop]
        assert blue[-1] - blue[0] > 0.03, "the blocks have the same order whatever the scene"


def test_chains_are_walked_until_a_task_has_a_start(configure, tmp_path):
    from rftf_torchrl.recipes.collect_demos import collect

    changes = ["ppo.tasks=[turn_off_lightbulb]", "env.options.start_chains=1", f"output={tmp_path}"]
    config = configure(*CALVIN, *changes, name="calvin")
    collect(config)
    assert StateBank.load(tmp_path / "states.npz").count("turn_off_lightbulb") > 0


def test_chains_are_walked_until_a_demonstration_is_held_out(configure, tmp_path):
    from rftf_torchrl import derive_seed, load_demonstrations
    from rftf_torchrl.calvin.sequences import training_chains
    from rftf_torchrl.recipes.collect_demos import collect

    first = next(training_chains(derive_seed(0, "chains", "validation") % 2**31))
    task = next(task for task in ("open_drawer", "turn_on_led") if task not in first.tasks)
    changes = [f"env.tasks=[{task}]", "env.options.held_out_chains=1", "demos.per_task=1"]
    changes += ["demos.held_out_per_task=1", f"ppo.tasks=[{task}]", f"output={tmp_path}"]
    collect(configure(*CALVIN, *changes, name="calvin"))
    splits = [episode.split for episode in load_demonstrations(tmp_path / "demos").episodes]
    assert splits == ["train", "test"]


def test_the_critics_first_iteration_sees_permuted_colours(run, tmp_path, monkeypatch):
    """And no other: what the policy learns from has to be what it saw."""
    from rftf_torchrl.calvin.door import Calvin
    from rftf_torchrl.recipes.finetune import finetune, update

    config, _ = run
    folder = config.folder
    parts = {
        "demos": replace(config.demos, path=str(folder.demonstrations)),
        "policy": replace(config.policy, path=str(folder.policy)),
        "value": replace(config.value, path=str(folder.value_model)),
        "ppo": replace(config.ppo, critic_warmup=1, iterations=1),
    }
    alone, augmented, original = [], [], Calvin.augment

    def watched(*arguments, train_policy):
        alone.append(not train_policy)
        return update(*arguments, train_policy=train_policy)

    def augment(self, frames, share, generator):
        augmented.append((alone[-1], share))
        return original(self, frames, share, generator)

    monkeypatch.setattr("rftf_torchrl.recipes.finetune.update", watched)
    monkeypatch.setattr(Calvin, "augment", augment)
    changed = replace(config, output=str(tmp_path), augment=0.5, **parts)
    finetune(changed)
    assert alone == [True, False]
    assert set(augmented) == {(True, 0.5)}
    first, second = read_metrics(changed.tuned.metrics, ended=True)
    assert first["kl"] == 0, "the policy has not moved"
    assert "ESS" in second
    assert "ESS" not in first


def test_the_expert_takes_over_from_the_cloned_policy(run, tmp_path):
    """Which demonstrations say, and which no run uses that does not know it."""
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_bc import clone

    config, _ = run
    led = replace(config.demos, takeover=str(config.folder.policy), per_task=4)
    options = {**config.env.options, "demo_chains": 8}
    env = replace(config.env, horizon=6, options=options)
    folders = []
    for workers in (0, 2):
        output = str(tmp_path / str(workers))
        collector = replace(config.collector, workers=workers)
        again = replace(config, output=output, demos=led, env=env, collector=collector)
        steps = collect(again)
        folders.append(load_demonstrations(again.folder.demonstrations))
    assert folders[0].episodes == folders[1].episodes
    assert folders[0].frames["action"].equal(folders[1].frames["action"])
    handed = sum(episode.takeover > 0 for episode in folders[0].episodes)
    assert 0 < handed < len(folders[0].episodes)
    assert max(episode.takeover for episode in folders[0].episodes) <= 3
    assert steps > folders[0].simulator_steps > len(folders[0].frames)
    clone(again)
    message = (
        f"in {handed} of {len(folders[1].episodes)} demonstrations of {folders[1].root} the expert "
        "took over from a policy: give that policy's file as demos.takeover, or record others in "
        "another folder (demos.path)"
    )
    with pytest.raises(ConfigError) as error:
        clone(replace(again, demos=replace(led, takeover=None)))
    assert str(error.value) == message


def test_a_policy_to_take_over_from_that_is_not_there(run, tmp_path):
    from rftf_torchrl.recipes.collect_demos import collect

    config, _ = run
    led = replace(config.demos, takeover=str(tmp_path / "none"))
    message = f"demos.takeover={tmp_path / 'none'}: there is no such file of a policy"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        collect(replace(config, output=str(tmp_path), demos=led))


def test_a_finished_run_is_read_and_not_repeated(run):
    from rftf_torchrl.recipes.quickstart import quickstart

    config, results = run
    with PeakMemory() as memory:
        with pytest.raises(FileExistsError, match="resume=true"):
            quickstart(config, memory)
        again = quickstart(replace(config, resume=True), memory)
    assert again["chains"] == results["chains"]
    steps = [found["simulator_steps"]["demonstrations"] for found in (again, results)]
    assert steps[0] == steps[1] > 0
    assert all(again["seconds"][name] >= spent for name, spent in results["seconds"].items())


def test_a_policy_with_two_cameras(configure, tmp_path):
    """Demonstrations, rollouts and chains have the gripper camera's images."""
    pytest.importorskip("transformers")
    from rftf_torchrl import load_demonstrations
    from rftf_torchrl.configs.policies import acting_policy
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.evaluate import judge
    from rftf_torchrl.recipes.train_bc import clone

    sizes = (
        "hidden: 32, layers: 1, heads: 4, history: 3, foresight: 4, "
        "image: {image_size: 32, dim: 32, depth: 1, heads: 4}, "
        "text: {vocab_size: 64, context: 12, width: 32, layers: 1, heads: 4, dim: 32}"
    )
    config = configure(
        *CALVIN,
        "env=calvin",
        "env.image_size=32",
        "env.options.wrist_size=24",
        "env.chunk_size=2",
        "policy=seer",
        f"policy.options.config={{{sizes}}}",
        f"output={tmp_path}",
    )
    collect(config)
    frames = load_demonstrations(tmp_path / "demos").frames
    assert frames["observation", "wrist_image"].shape[1:] == (3, 24, 24)
    policy, spec = acting_policy(config, clone(config))
    assert spec.wrist
    assert ("vla_inputs", "wrist_image_history") in policy.in_keys
    report, _ = judge(config, policy, spec, "policy", tmp_path)
    assert "wrist_size=24" in str(report.to_dict())
    start = (tmp_path / "start_policy.md").read_text(encoding="utf-8")
    sentence = TASKS[benchmark_sequences(1)[0].tasks[0]].instruction
    assert start.startswith(f'At the start of "{sentence}" the policy "policy" sees this.')
    assert re.search(r"\+1 opens \(fingers 0\.0[78]. m apart.*-1 closes \(0\.0[0-3]. m\)", start)
    assert Image.open(tmp_path / "start_policy.png").size == (32 + 24, 32)


def test_a_vision_language_model_goes_the_whole_way(configure, tmp_path):
    """Images of two sizes, prompts and action tokens, from demonstrations to chains."""
    pytest.importorskip("transformers")
    import torch
    from safetensors.torch import load_file

    from rftf_torchrl import save_tiny_vlm
    from rftf_torchrl.recipes.quickstart import quickstart

    config = configure(
        *CALVIN,
        "env=calvin",
        "env.image_size=32",
        "env.options.wrist_size=24",
        "env.chunk_size=2",
        "policy=smolvlm",
        "policy.options.bins=16",
        "policy.options.prompt_tokens=48",
        "value.shuffle_time=true",
        "policy.options.image_options.size.longest_edge=28",
        f"policy.pretrained={save_tiny_vlm(tmp_path / 'model', 'smolvlm')}",
        "ppo.learning_rate=1e-3",
        f"output={tmp_path / 'run'}",
        name="calvin",
    )
    with PeakMemory() as memory:
        results = quickstart(config, memory)
    assert results["chains"].keys() == {"cloned", "RFTF"}
    assert results["simulator_steps"]["RFTF"] > results["value_model"]["simulator_steps"] > 0
    before = load_file(tmp_path / "run/bc/policy.safetensors")
    after = load_file(tmp_path / "run/rftf/policy.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    report = ChainReport.load(tmp_path / "run/chains_RFTF.json")
    assert "wrist_size=24" in str(report.to_dict())
