"""Lose a simulator, the learner or its serving thread while a served policy is fine-tuned.

    python tests/faults/serve_anywhere.py --repeat 3

Each trial fine-tunes by the recipe, with ``collector=server``, and sends a signal at the first
decision, in the middle or at the last. A lost simulator costs one episode. A learner that stops
for a while goes on, and one that was killed or whose serving thread failed is resumed: both end
with the bits of a run without trouble. Prints a table and ends with code 1 where a promise was not
held.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from collect_anywhere import Clock
from kill_anywhere import left, published, quietly, run, temporary, tiny
from stop_anywhere import LEFT_SECONDS, MARK, seconds_until_none

from rftf_torchrl import RunConfig, read_metrics
from rftf_torchrl.envs import collector, policy_server, shared_policy
from rftf_torchrl.envs.policy_server import PolicyServer

TIMEOUT = 30.0  # as long as a busy machine may take to make an environment
SERVER = ["collector=server", "collector.workers=2", "collector.batch=1"]
STAGES = ["collect-demos", "train-bc", "train-value"]
MOMENTS = ["start", "middle", "end"]
KILL, STOP = signal.SIGKILL.name, signal.SIGSTOP.name
AT_ONCE = [("simulator", KILL), ("learner", KILL), ("serving thread", "end")]
"""What is noticed without waiting for a time-out: the short form."""
DROPPED = r"; Episode\(task='.*', seed=\d+, instruction=None\), \d+ in the list, is dropped"
SAID = {
    ("simulator", KILL): "a simulator process died with exit code -9" + DROPPED,
    ("simulator", STOP): f"a simulator process hung for {TIMEOUT:g} s" + DROPPED,
    ("learner", KILL): None,
    ("learner", STOP): None,
    ("serving thread", "end"): "the thread in which the policy decides was ended by SystemExit",
    ("serving thread", "hang"): (
        f"the policy has not answered for {TIMEOUT:g} s. It is here:\n\n(.|\n)*"
    ),
}


@dataclass(frozen=True)
class Trouble:
    """What is lost, how, and at which decision of the run."""

    what: str
    how: str
    decision: int

    def begin(self, simulator: int, broken: threading.Event) -> None:
        if self.what == "simulator":
            os.kill(simulator, signal.Signals[self.how])
        elif self.what == "serving thread":
            broken.set()
        else:
            if self.how == STOP:
                goes_on = f"sleep {TIMEOUT + 2}; kill -CONT {os.getpid()}"
                subprocess.Popen(["sh", "-c", goes_on])
            os.kill(os.getpid(), signal.Signals[self.how])

    def in_thread(self) -> None:
        if self.how == "end":
            raise SystemExit
        threading.Event().wait()


NONE = Trouble("nothing", "", -1)


def finetune(trouble: Trouble, stage: str, config: RunConfig) -> None:
    """The stage, in this process, with a trouble; writes down what was said, and when."""
    clock, broken, asked, begun = Clock(), threading.Event(), 0, 0.0
    sys.modules["__main__"] = ModuleType("__main__")  # simulators need not import this script
    ask, decide = PolicyServer.ask, policy_server.decide

    def troubled_ask(server: PolicyServer, observed: Any, answer: Any) -> None:
        nonlocal asked, begun
        asked += 1
        if asked - 1 == trouble.decision:
            begun = time.monotonic()
            trouble.begin(answer.__self__.process.pid, broken)
        ask(server, observed, answer)

    def troubled_decide(*observed: Any, **how: Any) -> Any:
        if broken.is_set():
            trouble.in_thread()
        return decide(*observed, **how)

    PolicyServer.ask, policy_server.decide = troubled_ask, troubled_decide  # type: ignore
    shared_policy.START_UP_SECONDS = TIMEOUT  # what a policy has at least for an answer
    logging.getLogger(collector.__name__).addHandler(clock)
    try:
        quietly(stage, config)
    except RuntimeError as error:
        clock.lines.append((time.monotonic(), str(error)))
        raise
    finally:
        lines = [(moment - begun, line) for moment, line in clock.lines]
        said(config).write_text(json.dumps([asked, lines]), encoding="utf-8")


def said(config: RunConfig) -> Path:
    return Path(f"{config.output}-said.json")


class Trials:
    """A run up to fine-tuning, a fine-tuning without trouble, and trials with one."""

    def __init__(self, work: Path) -> None:
        settings = ["ppo.iterations=3", f"collector.timeout={TIMEOUT:g}", *SERVER]
        self._config = tiny(work / "run", *settings)
        for stage in STAGES:
            if run(stage, self._config):
                raise RuntimeError(f"{stage} fails without trouble")
        self._number = 0
        code, self._expected, _, _, (self._decisions, lines) = self._run(NONE)
        if code or lines:
            raise RuntimeError(f"finetune fails without trouble: {code}, {lines}")

    def _run(self, trouble: Trouble) -> tuple[Any, ...]:
        self._number += 1
        trial = replace(self._config, output=f"{self._config.output}-{self._number}")
        shutil.copytree(self._config.output, trial.output)
        os.environ[MARK] = uuid.uuid4().hex
        code = run("finetune", trial, target=lambda *given: finetune(trouble, *given))
        alone = seconds_until_none(os.environ.pop(MARK))
        told = json.loads(said(trial).read_text(encoding="utf-8")) if said(trial).exists() else None
        if code and trouble is not NONE:
            code = run("finetune", replace(trial, resume=True))
        # a learner that is killed leaves a folder of multiprocessing's own, with a socket
        remains = [name for name in left(trial) if not name.startswith("pymp-")]
        found = published(trial)
        crashed = read_metrics(trial.tuned.metrics)[-1]["crashed"]
        shutil.rmtree(trial.output)
        shutil.rmtree(temporary(trial))
        return code, found, (crashed, remains), alone, told

    def lose(self, what: str, how: str, moment: str) -> tuple[list[str], float, float]:
        """Run with a trouble.

        Returns:
            What was wrong, the seconds until it was noticed, and those until no process was left.
        """
        at = {"start": 0, "middle": self._decisions // 2, "end": self._decisions - 1}
        code, found, (crashed, remains), alone, told = self._run(Trouble(what, how, at[moment]))
        wrong = [f"exit code {code}"] if code else []
        wrong += [f"left: {remains}"] if remains else []
        wrong += ["processes are left"] if math.isinf(alone) else []
        simulator, noticed, expected = what == "simulator", 0.0, SAID[what, how]
        if expected is not None:
            (noticed, line), *more = told[1]
            if more or not re.fullmatch(expected, line):
                wrong.append(f"said: {told[1]}")
        elif told is not None and told[1]:
            wrong.append(f"said: {told[1]}")
        if crashed != simulator:
            wrong.append(f"{crashed:g} episodes dropped")
        if not simulator and found != self._expected:
            names = {*found, *self._expected}
            differs = [n for n in names if found.get(n) != self._expected.get(n)]
            wrong.append(f"differs: {differs[:5]}")
        return wrong, noticed, alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=3)
    short = "what ends at once, one moment of each, times not judged"
    parser.add_argument("--short", action="store_true", help=short)
    given = parser.parse_args()
    broken = 0
    with tempfile.TemporaryDirectory() as work:
        trials = Trials(Path(work))
        print(
            "| what | how | moment | trials | noticed after, s | at most, s | alone after, s "
            "| at most, s | held |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for number, (what, how) in enumerate(AT_ONCE if given.short else SAID):
            for moment in [MOMENTS[number % 3]] if given.short else MOMENTS:
                found = [trials.lose(what, how, moment) for _ in range(given.repeat)]
                noticed, alone = (max(each) for each in list(zip(*found, strict=True))[1:])
                good = sum(
                    not wrong
                    and (given.short or (noticed <= TIMEOUT + 1 and alone <= LEFT_SECONDS))
                    for wrong, noticed, alone in found
                )
                broken += given.repeat - good
                row = [what, how, moment, given.repeat, f"{noticed:.2f}", f"{TIMEOUT + 1:g}"]
                row += [f"{alone:.2f}", f"{LEFT_SECONDS:g}", good]
                print(f"| {' | '.join(map(str, row))} |", flush=True)
                for wrong, _, _ in found:
                    print("\n".join(wrong), end="\n" if wrong else "", flush=True)
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()
