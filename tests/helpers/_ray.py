"""Ray clusters on this machine, for tests."""

import logging
import signal
from contextlib import contextmanager

import pytest

ray = pytest.importorskip("ray", reason="needs the package ray: pip install 'rftf-torchrl[ray]'")

QUIET = {"log_to_driver": False, "logging_level": logging.WARNING}


@contextmanager
def same_sigterm():
    """Without Ray's handler of SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def connected(**where):
    """This process connected to Ray."""
    with same_sigterm():
        ray.init(**where, **QUIET)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def cluster_of(*cpus):
    """This process connected to nodes with so many CPUs each; gives the cluster."""
    from ray.cluster_utils import Cluster

    ray.shutdown()  # where a test before had a cluster
    cluster = Cluster()
    try:
        with same_sigterm():
            for count in cpus:
                cluster.add_node(num_cpus=count, include_dashboard=False)
        with connected(address=cluster.address):
            cluster.wait_for_nodes()
            yield cluster
    finally:
        cluster.shutdown()
