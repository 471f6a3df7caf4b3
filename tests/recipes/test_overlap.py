"""Episodes that are played while the policy learns from those before."""

import re
import threading
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from rftf_torchrl import ConfigError, EpisodeCollector, read_metrics, save_policy
from rftf_torchrl.errors import TooManyCrashesError

pytestmark = pytest.mark.recipe

SETTINGS = [
    "env=gym",
    "env.tasks=[line]",
    "env.options.env_ids={hill: MountainCarContinuous-v0, line: 'tiny_gym:Line-v0'}",
    "env.options.instructions={hill: up, line: go right}",
    "env.options.success=success",
    "env.chunk_size=3",
    "env.horizon=4",
    "reward=sparse",
    "ppo.iterations=4",
    "ppo.episodes_per_task=6",
    "ppo.minibatch=8",
    "ppo.learning_rate=1e-2",
    "ppo.checkpoint_every=1",
    "collector.workers=2",
    "logger=csv",
    "device=cpu",
]


@pytest.fixture(scope="module")
def untrained(configure, tmp_path_factory):
    from rftf_torchrl.configs.policies import new_policy

    file = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    torch.manual_seed(0)
    policy, spec = new_policy(configure(*SETTINGS), state_dim=1, action_dim=1)
    save_policy(policy, spec, file)
    return file


@pytest.fixture
def config(configure, untrained, tmp_path):
    """A function from a folder's name and settings to a configuration."""

    def made(name, *settings, overlap=True, resume=False):
        return configure(
            *SETTINGS,
            f"ppo.overlap={overlap}",
            f"policy.path={untrained}",
            f"output={tmp_path / name}",
            f"resume={resume}",
            *settings,
        )

    return made


def weights(config):
    return load_file(config.tuned.policy)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def one_iteration_stale(config):
    """The weights after a loop that plays with the policy of an iteration ago, in one thread."""
    from rftf_torchrl import derive_seed, seed_everything
    from rftf_torchrl.configs.episodes import episode_factory
    from rftf_torchrl.configs.learner import make_learner
    from rftf_torchrl.recipes.finetune import add_advantages, training_episodes, update

    seed_everything(derive_seed(config.seed, "finetune"))
    learner = make_learner(config, torch.device("cpu"))
    played = deepcopy(learner.policy)
    rows, cut = [], 0
    for iteration in range(config.ppo.iterations + 1):
        before = deepcopy(learner.policy.state_dict())
        with EpisodeCollector(
            episode_factory(config, "train", learner.spec), played, workers=0
        ) as collector:
            data = collector.collect(
                training_episodes(config, iteration),
                seed=derive_seed(config.seed, "noise", iteration),
            )
        cut += int((~data["next", "executed"]).sum())
        data = add_advantages(config, replace(learner, policy=played), data.to("cpu"))
        rows.append(
            update(
                config,
                learner.loss,
                learner.optimizer,
                data,
                iteration,
                train_policy=iteration > 0,
            )
        )
        played.load_state_dict(before)
    assert cut, "the log-probability of a chunk that was cut short is computed again"
    return dict(learner.policy.state_dict()), rows


@pytest.mark.parametrize("workers", [0, 2])
def test_exactly_one_iteration_stale(config, workers):
    from rftf_torchrl.recipes.finetune import finetune

    run = config("run", f"collector.workers={workers}")
    finetune(run)
    expected, rows = one_iteration_stale(config("reference", overlap=False))
    assert same(weights(run), expected)
    logged = read_metrics(run.tuned.metrics)
    assert [float(row["kl"]) for row in logged] == [row["kl"] for row in rows]
    assert max(float(row["ratio_error"]) for row in logged) < 1e-5
    assert not same(weights(run), load_file(run.policy.path))


def test_without_it_no_weights_are_older(config, monkeypatch):
    from rftf_torchrl.recipes import finetune as recipe

    submitted = []
    monkeypatch.setattr(recipe.ThreadPoolExecutor, "submit", submitted.append)
    recipe.finetune(config("run", overlap=False))
    assert not submitted
    recipe.finetune(config("single", "collector.workers=0", overlap=False))
    assert same(weights(config("run")), weights(config("single")))


def test_ctrl_c_leaves_a_checkpoint_from_which_the_same_follows(config, monkeypatch):
    from rftf_torchrl.recipes import finetune as recipe

    recipe.finetune(config("whole"))
    update = recipe.update

    def interrupted(*arguments, **options):
        if arguments[4] == 2:
            raise KeyboardInterrupt
        return update(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(recipe, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recipe.finetune(config("broken"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("collect")]
    recipe.finetune(config("broken", resume=True))
    assert same(weights(config("whole")), weights(config("broken")))
    numbers = [read_metrics(config(name).tuned.metrics) for name in ("whole", "broken")]
    assert numbers[0] == numbers[1]


def test_an_error_of_the_collection_is_raised_after_the_update(config, monkeypatch):
    from rftf_torchrl.recipes import finetune as recipe

    collect, update, failed = EpisodeCollector.collect, recipe.update, threading.Event()
    collections = []

    def failing(self, *arguments, **options):
        collections.append(threading.current_thread().name)
        if len(collections) == 3:
            failed.set()
            raise TooManyCrashesError("no restart is left")
        found = collect(self, *arguments, **options)
        self.crashed += 1
        return found

    def waiting(*arguments, **options):
        if arguments[4] == 1:
            assert failed.wait(60), "the next collection runs during the update"
        return update(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(EpisodeCollector, "collect", failing)
        patched.setattr(recipe, "update", waiting)
        with pytest.raises(TooManyCrashesError, match="no restart is left"):
            recipe.finetune(config("run"))
    assert collections == ["MainThread", "collect_0", "collect_0"]
    rows = read_metrics(config("run").tuned.metrics)
    assert [row["crashed"] for row in rows] == [1, 2], "each is counted with its iteration"
    assert len(list(config("run").tuned.checkpoints.iterdir())) == 2


def test_it_needs_copies_of_the_policy(config):
    message = (
        "ppo.overlap=true: while the policy learns, only copies of it can play: set "
        "collector.policy=copy"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        config("run", "collector=server")


def test_it_is_not_changed_on_the_way(config):
    from rftf_torchrl.recipes.finetune import finetune

    finetune(config("run", "ppo.iterations=1"))
    with pytest.raises(ConfigError, match=r"ppo\.overlap=True, and now False"):
        finetune(config("run", overlap=False, resume=True))
