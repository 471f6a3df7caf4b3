"""The arms that only studies need: no critic, groups, Meta-World's own reward, a step budget."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]


@pytest.fixture(scope="module")
def cloned(configure, tmp_path_factory):
    """A cloned policy's file."""
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_bc import clone

    config = configure(*TINY, f"output={tmp_path_factory.mktemp('start')}")
    collect(config)
    return clone(config)


@pytest.fixture
def run(cloned, configure, tmp_path):
    """A function from overrides to the result of fine-tuning and the weights before and after."""
    from rftf_torchrl.recipes.finetune import finetune

    def ran(*overrides):
        settings = [*TINY, *overrides, f"output={tmp_path}", f"policy.path={cloned}"]
        seen = []
        result = finetune(
            configure(*settings),
            on_iteration=lambda number, _, progress: seen.append((number, progress["env_steps"])),
        )
        return result, seen, load_file(cloned), load_file(result["policy"])

    return ran


@pytest.mark.parametrize(
    "overrides",
    [["reward=environment"], ["reward=environment", "critic=none"]],
    ids=" ".join,
)
def test_the_own_reward_of_the_environment_teaches(run, overrides):
    result, seen, before, after = run(*overrides)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert seen[-1][1] == result["env_steps"] > 0


@pytest.mark.parametrize(
    "overrides",
    [["critic=none"], ["critic=group", "ppo.group_size=2", "balance=none"]],
    ids=" ".join,
)
def test_outcomes_alone(run, overrides):
    _, seen, before, after = run("reward=sparse", *overrides)
    assert [number for number, _ in seen] == [1, 2], "no critic, so no iterations to warm it up"
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert before.keys() == after.keys()


def test_a_budget_of_simulator_steps_ends_the_run(run):
    result, seen, *_ = run("reward=sparse", "ppo.iterations=50", "ppo.env_steps=700")
    assert seen[-2][1] < 700 <= seen[-1][1] == result["env_steps"]


def test_groups_share_their_initial_state(configure):
    from rftf_torchrl.recipes.finetune import training_episodes

    settings = [*TINY, "reward=sparse", "critic=group", "ppo.episodes_per_task=4", "output=x"]
    grouped = training_episodes(configure(*settings, "ppo.group_size=2"), 0)
    single = training_episodes(configure(*TINY, "ppo.episodes_per_task=4", "output=x"), 0)
    assert [e.seed for e in grouped[:4]] == [single[0].seed] * 2 + [single[1].seed] * 2
