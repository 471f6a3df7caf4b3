"""A player for worker processes that does as it is told."""

import os
import time

from rftf_torchrl import SimulatorCrashedError
from rftf_torchrl.errors import UserError


class EchoPlayer:
    def __init__(self, trouble=None, closed=None):
        self.closed = closed
        if trouble == "raise":
            raise KeyError("no player")
        if trouble == "lack":
            raise UserError("no library to draw with")
        if trouble == "exit":
            os._exit(4)

    def play(self, job, send):
        if job == "crash":
            raise SimulatorCrashedError("the robot fell")
        if job == "raise":
            raise KeyError("the fake is broken")
        if job == "lose":
            raise BrokenPipeError("the renderer is gone")
        if job == "exit":
            os._exit(3)
        if job == "sleep":
            time.sleep(600)
        send(f"{job[:20]} begun")
        if job == "loop":
            while True:
                pass
        if job == "loop in C":  # it never lets another thread run
            sum(iter(int, 1))
        while job == "send":
            send(bytes(32_000_000))  # far more than a pipe holds
        send(f"{job[:20]} done")

    def close(self):
        if self.closed:
            self.closed.touch()


class OncePlayer:
    """Its result is its job."""

    def play(self, job, send):
        send(job)

    def close(self):
        pass
