"""The long description for the package index: the README, its links led to the repository."""

import re
from pathlib import Path

from setuptools import setup

REPOSITORY = "https://github.com/rftf-torchrl/rftf_torchrl/blob/HEAD/"

IMAGES = "https://raw.githubusercontent.com/rftf-torchrl/rftf_torchrl/HEAD/"

readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
readme = re.sub(r"(!\[[^\]]*\]\()(?!https?://)", rf"\g<1>{IMAGES}", readme)
setup(
    long_description=re.sub(r"\]\((?!https?://|#)", f"]({REPOSITORY}", readme),
    long_description_content_type="text/markdown",
)
