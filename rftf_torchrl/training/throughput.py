"""How fast a run collects and learns, and which setting to try next."""

from __future__ import annotations

from dataclasses import dataclass

from rftf_torchrl.settings import Positive

BUSY = 0.5


@dataclass
class BenchConfig:
    """A measurement of collection and update.

    Attributes:
        seconds: seconds to measure each of the two, about.
    """

    seconds: Positive = 30.0


@dataclass(frozen=True)
class Throughput:
    """What was measured, and what it was measured with.

    Attributes:
        decisions_per_second: of the collection, over all simulators.
        mean_batch: decisions of a forward pass of the policy.
        simulator_idle: share of the time in which a simulator waits.
        policy_idle: share of the time in which a policy, or a copy of it, waits.
        simulator_ms: a step or reset, with the policy's observation transform.
        policy_ms: a forward pass.
        samples_per_second: of the update, forward and backward.
        memory_gib: peak of the machine's memory, of all processes.
        gpu_gib: peak of the GPU's memory; None without one.
        gpu_total_gib: the GPU's memory.
        epochs: of the update.
        workers: processes with simulators; 0 for none.
        served: whether one policy decides for all of them.
        cores: processor cores that the run may use.
        micro_batch: decisions of a forward pass of the update.
        minibatch: decisions of an optimizer's step.
        compiles: whether the policy could be compiled and is not.
    """

    decisions_per_second: float
    mean_batch: float
    simulator_idle: float
    policy_idle: float
    simulator_ms: float
    policy_ms: float
    samples_per_second: float
    memory_gib: float
    gpu_gib: float | None = None
    gpu_total_gib: float = 0.0
    epochs: int = 1
    workers: int = 0
    served: bool = False
    cores: int = 1
    micro_batch: int = 1
    minibatch: int = 1
    compiles: bool = False

    @property
    def update_share(self) -> float:
        """Share of an iteration that is its update."""
        update = self.epochs / self.samples_per_second
        return update / (update + 1 / self.decisions_per_second)

    def table(self) -> str:
        """Two columns of text."""
        places = 1 if self.served else max(self.workers, 1)
        of = "" if places == 1 else f" of each of {places} copies"
        rows = {
            "decisions per second": f"{self.decisions_per_second:.1f}",
            "mean batch of the policy": f"{self.mean_batch:.1f}",
            "simulators idle": f"{self.simulator_idle:.0%} of {max(self.workers, 1)}",
            "policy idle": f"{self.policy_idle:.0%}{of}",
            "simulator, a step": f"{self.simulator_ms:.2f} ms",
            "policy, a forward pass": f"{self.policy_ms:.2f} ms",
            "update samples per second": f"{self.samples_per_second:.1f}",
            "update's share of an iteration": f"{self.update_share:.0%}",
            "peak memory": f"{self.memory_gib:.2f} GiB",
        }
        if self.gpu_gib is not None:
            rows["peak memory of the GPU"] = f"{self.gpu_gib:.2f} of {self.gpu_total_gib:.0f} GiB"
        width = max(map(len, rows))
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())


def next_setting(measured: Throughput) -> str:
    """The setting to try next: of what takes most of an iteration, the part that hardly waits.

    Args:
        measured: by ``rftf bench``.

    Returns:
        A sentence that begins with the setting.

    Example:
        >>> slow = Throughput(9.0, 1.0, 0.0, 0.9, 100.0, 1.0, 900.0, 1.0, workers=2, cores=8)
        >>> next_setting(slow)
        'collector.workers=4: the simulators hardly wait, and 2 of 8 cores have one'
    """
    return _of_update(measured) if measured.update_share > 0.5 else _of_collection(measured)


def _of_update(m: Throughput) -> str:
    used = 0.0 if m.gpu_gib is None else m.gpu_gib / m.gpu_total_gib
    share = f"the update takes {m.update_share:.0%} of an iteration"
    if used > 0.9 and m.micro_batch > 1:
        return f"ppo.micro_batch={m.micro_batch // 2}: {share}, and the GPU's memory is full"
    if m.compiles and m.gpu_gib is not None:
        return f"policy.compile=true: {share}"
    if m.gpu_gib is not None and used < 0.45 and m.micro_batch < m.minibatch:
        larger = min(2 * m.micro_batch, m.minibatch)
        return f"ppo.micro_batch={larger}: {share}, and half of the GPU's memory is free"
    if m.epochs > 1:
        return f"ppo.epochs={m.epochs // 2}: {share}; it learns less from each decision"
    return f"a larger ppo.episodes_per_task: {share}, and each decision is used once already"


def _of_collection(m: Throughput) -> str:
    simulators = m.simulator_idle < min(BUSY, m.policy_idle)
    if m.policy_idle < min(BUSY, m.simulator_idle):
        if m.workers and not m.served and m.policy_ms > m.simulator_ms:
            return "collector.policy=server: the copies of the policy hardly wait"
        if m.compiles and m.gpu_gib is not None:
            return "policy.compile=true: the policy hardly waits"
        if m.served and m.mean_batch < m.workers / 2:
            return (
                "a longer collector.wait: the policy hardly waits, and decides for "
                f"{m.mean_batch:.1f} of {m.workers} simulators at a time"
            )
        return "a smaller policy or a larger env.chunk_size: the policy hardly waits"
    free = m.workers < m.cores
    if simulators and not free:
        return (
            "a smaller env.image_size, or a machine with more cores: the simulators hardly wait, "
            f"and there are {m.workers} for {m.cores} cores"
        )
    if not free and not m.served:
        return "nothing: simulators and policies take turns, and each of the cores has both"
    more = max(2 * m.workers, 2) if m.served else min(max(2 * m.workers, 2), m.cores)
    if simulators:
        return (
            f"collector.workers={more}: the simulators hardly wait, and {m.workers} of {m.cores} "
            "cores have one"
        )
    return f"collector.workers={more}: simulators and policy wait for each other"
