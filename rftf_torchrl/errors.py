"""Errors that more than one package raises or catches."""


class SimulatorCrashedError(RuntimeError):
    """The physics died or became unstable: the episode says nothing about the policy."""


class TooManyCrashesError(RuntimeError):
    """Worker processes died or hung more often than ``max_restarts`` allows."""
