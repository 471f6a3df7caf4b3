"""A player in a process of Ray's, which imports this file first: it is quick to import."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.connection import Connection, Listener
from typing import Any

from rftf_torchrl.optional import ray_module


def socket_of(connection: Connection) -> socket.socket:
    """The same socket once more, with a descriptor of its own."""
    return socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)


def without_delay(connection: Connection) -> Connection:
    """Each message is sent at once: many are short, and somebody waits for them."""
    with socket_of(connection) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class RemotePlayer:
    """Has a player, which Ray calls; what the player sends goes by a line of its own.

    Args:
        key: what the other end of the line has to know.
    """

    def __init__(self, key: bytes) -> None:
        host = ray_module().util.get_node_ip_address()
        self._listener = Listener((host, 0), authkey=key)

    def where(self) -> tuple[Any, int]:
        """The address at which it waits for the pool, and its process."""
        return self._listener.address, os.getpid()

    def start(self, folders: Sequence[str], make_player: bytes) -> None:
        """Make the player, from files that are also in these folders."""
        sys.path.extend(folder for folder in folders if folder not in sys.path)
        with closing(self._listener):
            self._connection = without_delay(self._listener.accept())
        import torch

        from rftf_torchrl.envs.workers import Line, told

        torch.set_num_threads(1)
        self._told, self._line = told, Line(self._connection)
        with self._told(self._connection):
            self._player = pickle.loads(make_player)()
            self._connection.send(("ready", None))

    def load(self, weights: Any) -> None:
        """Give the player's policy other weights."""
        with self._told(self._connection):
            self._player.load(weights)

    def play(self, job: Any) -> None:
        """Do a job; None is the last."""
        if job is None:
            with closing(self._connection):
                self._player.close()
            return
        with self._told(self._connection):
            self._connection.send(("begun", None))
            self._player.play(job, self._line)
            self._connection.send(("idle", None))
