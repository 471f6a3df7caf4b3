"""The long description for the package index: the README, its links led to the repository."""

import re
from pathlib import Path

from setuptools import setup

REPOSITORY = "https://github.com/rftf-torchrl/rftf_torchrl/blob/HEAD/"

readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(
    long_description=re.sub(r"\]\((?!https?://|#)", f"]({REPOSITORY}", readme),
    long_description_content_type="text/markdown",
)
