"""Is what ``python -m build`` made complete? ``python .ci/check_package.py dist/*``."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What git keeps and the package does without.
LEFT_OUT = {".github"}


def kept_by_git() -> set[str]:
    if not (ROOT / ".git").exists():  # an unpacked source distribution
        return set()
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.splitlines() if name.split("/")[0] not in LEFT_OUT}


def check_source(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = sorted(kept_by_git() - names)
    return [f"{path.name} lacks {name}" for name in missing]


def check_wheel(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    lost = re.findall(r"\]\((?!https?://|#)[^)]*\)", text)
    problems = [f"{path.name}: the long description has a relative link {link}" for link in lost]
    for name in ("rftf_torchrl/py.typed", "rftf_torchrl/recipes/conf/minute.yaml"):
        if name not in names:
            problems.append(f"{path.name} lacks {name}")
    return problems


def main() -> None:
    problems = []
    for path in map(Path, sys.argv[1:]):
        problems += check_wheel(path) if path.suffix == ".whl" else check_source(path)
    print("\n".join(problems) or f"{len(sys.argv) - 1} files are complete")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
