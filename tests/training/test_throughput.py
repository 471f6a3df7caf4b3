"""What `rftf bench` advises, on made-up measurements."""

from dataclasses import replace

import pytest

from rftf_torchrl import BusyTime, Throughput, next_setting

# A collection that takes nine tenths of an iteration, where nobody waits much.
BASE = Throughput(
    decisions_per_second=10.0,
    mean_batch=1.0,
    simulator_idle=0.5,
    policy_idle=0.5,
    simulator_ms=20.0,
    policy_ms=20.0,
    samples_per_second=360.0,
    memory_gib=1.0,
    epochs=4,
    workers=8,
    cores=8,
    micro_batch=16,
    minibatch=64,
)
SIMULATORS = {"simulator_idle": 0.05, "policy_idle": 0.95}
POLICY = {"simulator_idle": 0.95, "policy_idle": 0.05}
GPU = {"gpu_gib": 40.0, "gpu_total_gib": 80.0}
UPDATE = {"samples_per_second": 20.0}


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        (
            {**SIMULATORS, "workers": 2},
            "collector.workers=4: the simulators hardly wait, and 2 of 8 cores have one",
        ),
        (
            {**SIMULATORS, "workers": 0},
            "collector.workers=2: the simulators hardly wait, and 0 of 8 cores have one",
        ),
        (
            {**SIMULATORS, "workers": 6},
            "collector.workers=8: the simulators hardly wait, and 6 of 8 cores have one",
        ),
        (
            SIMULATORS,
            "a smaller env.image_size, or a machine with more cores: the simulators hardly wait, "
            "and there are 8 for 8 cores",
        ),
        (
            {**POLICY, "policy_ms": 400.0},
            "collector.policy=server: the copies of the policy hardly wait",
        ),
        (
            {**POLICY, "served": True, "workers": 16, "mean_batch": 4.0},
            "a longer collector.wait: the policy hardly waits, and decides for 4.0 of 16 "
            "simulators at a time",
        ),
        (
            {**POLICY, "served": True, "mean_batch": 7.5},
            "a smaller policy or a larger env.chunk_size: the policy hardly waits",
        ),
        (
            {**POLICY, **GPU, "served": True, "compiles": True},
            "policy.compile=true: the policy hardly waits",
        ),
        ({}, "nothing: simulators and policies take turns, and each of the cores has both"),
        ({"served": True}, "collector.workers=16: simulators and policy wait for each other"),
        ({"workers": 4}, "collector.workers=8: simulators and policy wait for each other"),
        (
            {**UPDATE, **GPU, "gpu_gib": 78.0},
            "ppo.micro_batch=8: the update takes 67% of an iteration, and the GPU's memory is full",
        ),
        (
            {**UPDATE, **GPU, "gpu_gib": 20.0},
            "ppo.micro_batch=32: the update takes 67% of an iteration, and half of the GPU's "
            "memory is free",
        ),
        (
            {**UPDATE, **GPU, "compiles": True},
            "policy.compile=true: the update takes 67% of an iteration",
        ),
        (
            UPDATE,
            "ppo.epochs=2: the update takes 67% of an iteration; it learns less from each decision",
        ),
        (
            {"epochs": 1, "samples_per_second": 5.0},
            "a larger ppo.episodes_per_task: the update takes 67% of an iteration, and each "
            "decision is used once already",
        ),
    ],
)
def test_the_next_setting(changes, advice):
    assert next_setting(replace(BASE, **changes)) == advice


def test_the_table():
    assert replace(BASE, **GPU).table() == (
        "decisions per second            10.0\n"
        "mean batch of the policy        1.0\n"
        "simulators idle                 50% of 8\n"
        "policy idle                     50% of each of 8 copies\n"
        "simulator, a step               20.00 ms\n"
        "policy, a forward pass          20.00 ms\n"
        "update samples per second       360.0\n"
        "update's share of an iteration  10%\n"
        "peak memory                     1.00 GiB\n"
        "peak memory of the GPU          40.00 of 80 GiB"
    )


@pytest.mark.slow
def test_processes_add_to_one_sum():
    import torch.multiprocessing as mp

    busy = BusyTime()
    context = mp.get_context("spawn")
    workers = [context.Process(target=busy.add, args=(0.5, 3)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (busy.seconds, busy.calls, busy.rows) == (1.0, 2, 6)
    busy.clear()
    assert (busy.seconds, busy.calls, busy.rows) == (0.0, 0, 0)
