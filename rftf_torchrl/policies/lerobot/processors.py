"""LeRobot's files of processing steps, looked at before LeRobot imports what they name."""

from __future__ import annotations

import json
from pathlib import Path

from rftf_torchrl.optional import optional_module

_FILES = ("policy_preprocessor.json", "policy_postprocessor.json")
_OWN = "lerobot."


def refuse_foreign_steps(source: str | Path) -> None:
    """Stop where a checkpoint's processing steps are classes of another package.

    LeRobot imports and calls such a class, with arguments from the file, before it looks whether it
    is a processing step.

    Args:
        source: folder or hub id.

    Raises:
        ValueError: naming the file, the step and its class.
    """
    for name in _FILES:
        file = _local(source, name)
        if file is None:
            continue
        content = json.loads(file.read_text(encoding="utf-8"))
        steps = content.get("steps", []) if isinstance(content, dict) else []
        for number, step in enumerate(steps):
            if not isinstance(step, dict):
                raise ValueError(f"{file}: step {number} is {step!r}, expected a mapping")
            named = step.get("class")
            if "registry_name" not in step and not str(named).startswith(_OWN):
                raise ValueError(
                    f"{file}: step {number} is the class {named!r}, which is none of LeRobot's; "
                    "reading it would run code that the checkpoint chooses. Save the checkpoint "
                    "with registered steps (registry_name)."
                )


def _local(source: str | Path, name: str) -> Path | None:
    """The file on disk, of a hub's from its cache or downloaded; None where there is none."""
    if Path(source).is_dir():
        file = Path(source, name)
        return file if file.is_file() else None
    hub = optional_module("huggingface_hub", "video", "a checkpoint of the hub")
    try:
        return Path(hub.hf_hub_download(str(source), name))
    except (OSError, ValueError):  # LeRobot says it
        return None
