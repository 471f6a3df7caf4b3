"""Losses and advantages."""

from rftf_torchrl.former import former_names

__getattr__ = former_names(__name__)
