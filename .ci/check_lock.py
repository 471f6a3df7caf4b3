"""Is there a solution for every Python that pyproject.toml claims, with constraints.txt?

Resolves only, from the packages' metadata, without that Python: ``python .ci/check_lock.py``.
Each package of the solution has to be pinned, but for those of torch's CUDA build.
"""

import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CLAIM = "Programming Language :: Python :: 3."
COMMAND = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", "pyproject.toml"]
COMMAND += ["--constraints", "constraints.txt"]
COMMAND += ["--extra", "metaworld", "--extra", "libero", "--extra", "ray"]
COMMAND += ["--extra", "dev", "--extra", "docs"]
# Wheels only, so that nothing is built; these packages have none.
COMMAND += ["--only-binary", ":all:"]
COMMAND += ["--no-binary", "antlr4-python3-runtime", "--no-binary", "bddl"]
NOT_PINNED = ("cuda-", "nvidia-", "triton", "setuptools")


def claimed() -> list[str]:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    found = [line.strip(' ",') for line in lines if CLAIM in line]
    return [line.rpartition(" ")[2] for line in found]


def pinned(python: str) -> set[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    here = {"python_version": python}
    return {pin.name for pin in pins if pin.marker is None or pin.marker.evaluate(here)}


def main() -> None:
    failed = False
    for python in claimed():
        command = [*COMMAND, "--python-version", python, "--python-platform", "linux"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        solution = {line.partition("==")[0] for line in done.stdout.splitlines() if "==" in line}
        loose = sorted(solution - pinned(python))
        loose = [name for name in loose if not name.startswith(NOT_PINNED)]
        if "Failed to fetch" in done.stderr:
            print(f"Python {python}: not checked, as the package index can't be reached")
            continue
        if done.returncode:
            print(f"Python {python}: constraints.txt has no solution\n{done.stderr}")
        elif loose:
            print(f"Python {python}: constraints.txt does not pin {', '.join(loose)}")
        else:
            print(f"Python {python}: {len(solution)} packages")
        failed = failed or bool(done.returncode or loose)
    sys.exit(failed)


if __name__ == "__main__":
    main()
