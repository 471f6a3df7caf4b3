"""``rftf bench`` on tiny settings: everything is measured, and nothing is written."""

from dataclasses import replace

import pytest
from tiny import TINY

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_number_is_measured(configure, tmp_path, workers):
    from rftf_torchrl import next_setting
    from rftf_torchrl.recipes.bench import bench

    output = tmp_path / "run"
    words = [f"collector.workers={workers}", f"output={output}", "bench.seconds=1e-3"]
    measured = bench(configure(*TINY, *words))
    assert measured.decisions_per_second > 0
    assert 1 <= measured.mean_batch <= 2
    assert 0 <= measured.simulator_idle < 1
    assert 0 <= measured.policy_idle < 1
    assert measured.simulator_idle + measured.policy_idle >= 1 - 1e-6, "they take turns"
    assert measured.simulator_ms > 0
    assert measured.policy_ms > 0
    assert measured.samples_per_second > 0
    assert measured.memory_gib > 0.1
    assert (measured.workers, measured.epochs, measured.minibatch) == (workers, 2, 8)
    assert measured.gpu_gib is None
    assert len(measured.table().splitlines()) == 9
    assert next_setting(replace(measured, cores=2))
    assert not output.exists()


def test_actors_are_not_measured(configure, tmp_path):
    from rftf_torchrl import ConfigError
    from rftf_torchrl.recipes.bench import bench

    words = ["collector.engine=ray", "collector.workers=1", f"output={tmp_path}"]
    message = (
        "collector.engine=ray: rftf bench adds up what the processes of this machine do; measure "
        "with collector.engine=process"
    )
    with pytest.raises(ConfigError, match=f"^{message}$"):
        bench(configure(*TINY, *words))


def test_the_policy_of_a_file(configure, tmp_path):
    from rftf_torchrl import save_policy
    from rftf_torchrl.configs.policies import new_policy
    from rftf_torchrl.recipes.bench import policy_file

    config = configure(*TINY, "policy=flow", "reward=rftf", "critic=temporal", "bench.seconds=1e-3")
    with policy_file(config) as made:
        assert made.is_file()
    assert not made.exists()
    policy, spec = new_policy(config, state_dim=39, action_dim=4)
    save_policy(policy, spec, tmp_path / "policy.safetensors")
    config.policy.path = str(tmp_path / "policy.safetensors")
    with policy_file(config) as given:
        assert given == tmp_path / "policy.safetensors"
