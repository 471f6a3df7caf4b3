"""Success rates, checks of value models and language, plots, videos."""

from rftf_torchrl.former import former_names

__getattr__ = former_names(__name__)
