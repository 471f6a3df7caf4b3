"""CALVIN: where its public names were before version 0.2."""

from rftf_torchrl.former import former_names

__getattr__ = former_names(__name__)
