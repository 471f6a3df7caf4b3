"""The field's variants of the official evaluation, and in what an evaluation differs from one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rftf_torchrl.libero.simulator import SETTLING_STEPS
from rftf_torchrl.libero.suites import STATES_PER_TASK, libero_tasks, trained_suite

_STEPS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}


@dataclass(frozen=True)
class Protocol:
    """A published variant of the official evaluation.

    All of them play the 50 official initial states of each task once, after ten control steps in
    which the scene settles, and count an episode as a success if the goal is fulfilled at any step.

    Attributes:
        name: whose code it is.
        steps: control steps of an episode, by suite.
        replan: actions that are carried out before the policy looks again; ``None`` where that is
            the policy's own choice.
        first_seed: the seed that places fixtures at the first state.
        seed_step: by how much it rises with each state.
    """

    name: str
    steps: Mapping[str, int]
    replan: int | None
    first_seed: int
    seed_step: int = 0

    def limit(self, suite: str) -> int:
        """Control steps of an episode; a perturbed suite has those of the one it perturbs."""
        return self.steps[trained_suite(suite)]


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("openvla-oft", _STEPS, 8, 0),
        Protocol("openpi", _STEPS, 5, 7),
        Protocol("lerobot", _STEPS | {"libero_spatial": 280}, None, 1000, 1),
    )
}
"""Variants by name.

Sources: openvla-oft ``experiments/robot/libero/run_libero_eval.py``, openpi
``examples/libero/main.py``, lerobot ``envs/libero.py`` and ``configs/eval.py``.
"""


def protocol_label(
    protocol: Protocol,
    crashed: int,
    *,
    suite: str,
    tasks: Sequence[str],
    states: int,
    replan: int,
    pictures: str,
    privileged: bool,
) -> str:
    """The official evaluation, or in what one differs from it.

    Args:
        protocol: the variant.
        crashed: episodes that are not counted.
        suite: the suite.
        tasks: names of the tasks that were played.
        states: initial states of each.
        replan: actions per decision.
        pictures: how they are drawn.
        privileged: whether the policy sees where the objects are.
    """
    differences = []
    known = libero_tasks(suite)
    if set(tasks) != set(known):
        differences.append(f"{len(tasks)} of the {len(known)} tasks")
    if states != STATES_PER_TASK:
        differences.append(f"{states} of the {STATES_PER_TASK} initial states of each task")
    if protocol.replan not in (None, replan):
        differences.append(f"the policy looks every {replan} actions, not {protocol.replan}")
    if privileged:
        differences.append("the policy sees the simulator's state")
    elif pictures != "exact":
        differences.append(f"{pictures} images")
    if crashed:
        differences.append(f"{crashed} crashed episodes are not counted")
    about = (
        f"{suite} as {protocol.name} plays it, {len(tasks)} tasks, {states} initial states each, "
        f"{protocol.limit(suite)} steps after {SETTLING_STEPS} to settle"
    )
    if differences:
        return f"NOT the official protocol: {'; '.join(differences)} ({about})"
    return f"Official protocol: {about}"
