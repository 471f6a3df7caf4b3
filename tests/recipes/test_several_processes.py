"""Fine-tuning on processes that torchrun starts ends where one process does."""

import importlib.util
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from several import begin, command, environment, largest_difference, run, weights

from rftf_torchrl import read_metrics
from rftf_torchrl.training.signs_of_life import LOST

pytestmark = [pytest.mark.recipe, pytest.mark.slow]

BOUND = 1e-6
"""Of a parameter after 3 iterations; the largest difference that we have seen is 8e-9."""
TIMEOUT = 15
SHARD = "ppo.shard=true"
CHECKPOINTS = "run/sparse/checkpoints"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The setting of a policy to begin from."""
    return f"policy.path={begin(tmp_path_factory.mktemp('policy') / 'policy.safetensors')}"


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    """The folder of a run in one process."""
    output = tmp_path_factory.mktemp("alone") / "run"
    done = run(0, start, f"output={output}")
    assert not done.returncode, done.stderr
    return output


@pytest.mark.parametrize("further", [[], [SHARD]], ids=["whole", "sharded"])
def test_two_processes_end_where_one_does(start, alone, tmp_path, further):
    output = tmp_path / "two"
    done = run(2, start, f"output={output}", "ppo.micro_batch=4", *further)
    assert not done.returncode, done.stderr
    assert largest_difference(alone, output) < BOUND
    untrained = load_file(start.partition("=")[2])
    assert all((value != untrained[name]).any() for name, value in weights(output).items())
    assert done.stdout.count("fine-tuning: done in") == 1
    rows = [read_metrics(folder / "sparse" / "metrics.csv") for folder in (alone, output)]
    for one, two in zip(*rows, strict=True):
        assert one["success"] == two["success"]
        assert one["kl"] == pytest.approx(two["kl"], abs=1e-5)


@pytest.mark.parametrize(("before", "after"), [((2, SHARD), (0,)), ((0,), (3, SHARD))])
def test_a_run_goes_on_with_another_number_of_processes(start, alone, tmp_path, before, after):
    output = f"output={tmp_path}/run"
    assert not run(*before, start, output, "ppo.iterations=1").returncode
    done = run(*after, start, output, "resume=true")
    assert not done.returncode, done.stderr
    assert "sparse: continues after iteration 2" in done.stdout
    assert largest_difference(alone, tmp_path / "run") < BOUND


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_adapters_on_two_processes(start, tmp_path):
    ways = {"alone": (0,), "two": (2,), "sharded": (2, SHARD)}
    for way, processes in ways.items():
        settings = [start, f"output={tmp_path}/{way}", "policy.lora_rank=2", "ppo.overlap=true"]
        done = run(*processes, *settings, "policy.lora_targets=[inner,outer]")
        assert not done.returncode, done.stderr
    for way in ways:
        assert largest_difference(tmp_path / "alone", tmp_path / way) < BOUND


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_run(start, tmp_path, killed):
    said = ended_by(sent(signal.SIGKILL, killed), start, tmp_path)
    assert LOST in said
    assert re.search(rf"rank +: {killed} ", said)
    assert_goes_on(start, tmp_path)


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_process_is_named_and_ends_the_run(start, tmp_path, stopped):
    said = ended_by(sent(signal.SIGSTOP, stopped), start, tmp_path)
    assert silence(stopped) in said
    assert LOST not in said


def test_a_process_that_is_stopped_as_it_starts_is_named(start, tmp_path):
    assert silence(0) in ended_by(sent(signal.SIGSTOP, 0), start, tmp_path, begun=False)


def test_processes_end_after_torchrun_was_killed(start, tmp_path):
    ended_by(lambda _, torchrun: torchrun.kill(), start, tmp_path)


def sent(number, rank):
    """A fault: this signal to this process."""
    return lambda processes, _: os.kill(processes[rank], number)


def silence(rank):
    return (
        f"process {rank} of this run has given no sign of life for {TIMEOUT} s (collector.timeout),"
        " so the run ends: it was stopped, or its machine does not answer. resume=true goes on from"
        " the newest checkpoint"
    )


def ended_by(fault, start, tmp_path, *, begun=True):
    """What a run of two processes says that a fault ends, at its start or in the middle."""
    settings = [start, f"output={tmp_path}/run", f"collector.timeout={TIMEOUT}"]
    with subprocess.Popen(
        command(2, *settings, "ppo.iterations=100000"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as torchrun:
        while len(processes := children(torchrun.pid)) < 2 or (
            begun and not list(Path(tmp_path, CHECKPOINTS).glob("*.torchrl"))
        ):
            assert torchrun.poll() is None
            time.sleep(0.1)
        fault(processes, torchrun)
        try:
            said = torchrun.communicate(timeout=120)[0]
        except subprocess.TimeoutExpired:
            for number in [torchrun.pid, *processes]:
                os.kill(number, signal.SIGKILL)
            raise
    assert torchrun.returncode
    ends = time.monotonic() + 10
    while [number for number in processes if lives(number)]:
        assert time.monotonic() < ends
        time.sleep(0.1)
    return said


def assert_goes_on(start, tmp_path):
    """In one process, from the newest checkpoint."""
    files = Path(tmp_path, CHECKPOINTS).glob("checkpoint-*.torchrl")
    step = int(max(files).stem.rpartition("-")[2])
    settings = [start, f"output={tmp_path}/run", "resume=true", f"ppo.iterations={step}"]
    done = run(0, *settings)
    assert not done.returncode, done.stderr
    assert f"sparse: continues after iteration {step}" in done.stdout


def test_one_process_has_nothing_to_divide_among(start, tmp_path):
    done = run(0, start, f"output={tmp_path}/run", SHARD)
    message = (
        "finetune: ppo.shard=true divides the policy over the processes that torchrun starts, and "
        "this one is alone: start it with torchrun --nproc-per-node=2 -m "
        "rftf_torchrl.recipes.finetune ..., or leave out ppo.shard\n"
    )
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert not Path(tmp_path, "run", "sparse").exists()


def test_other_recipes_run_in_one_process(start, tmp_path):
    done = run(2, start, f"output={tmp_path}/run", recipe="train_bc")
    message = (
        "train_bc: torchrun has started 2 processes, and train_bc runs in one: start it without "
        "torchrun. What runs on several is finetune\n"
    )
    assert done.returncode
    assert done.stderr.count(message) == 1


def children(number):
    """The processes that another one has started, in the order of their start."""
    return sorted(map(int, ps("pid=", "--ppid", number).split()))


def lives(number):
    return ps("stat=", "-p", number).strip()[:1] not in ("", "Z")


def ps(column, which, number):
    """It fails where there is no such process, and prints nothing."""
    words = ["ps", "-o", column, which, str(number)]
    return subprocess.run(words, capture_output=True, encoding="utf-8", check=False).stdout
