"""Errors that more than one package raises or catches."""


class UserError(RuntimeError):
    """An error that the user can fix: the recipes show it without a traceback."""


class SimulatorCrashedError(RuntimeError):
    """The physics died or became unstable: the episode says nothing about the policy."""


class TooManyCrashesError(UserError):
    """Worker processes died or hung more often than ``max_restarts`` allows."""
