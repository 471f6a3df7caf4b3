"""Transforms of environments and of batches."""

from rftf_torchrl.former import former_names

__getattr__ = former_names(__name__)
