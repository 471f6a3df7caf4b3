"""What a LeRobot spec does without the package."""

import json
import re
import sys

import pytest

from rftf_torchrl import LeRobotSpec

CONFIG = {"type": "act", "input_features": {"observation.state": {"type": "STATE", "shape": [3]}}}


def test_json_keeps_nested_keys():
    spec = LeRobotSpec(CONFIG, {"observation.state": ("observation", "state")}, chunk_size=2)
    again = LeRobotSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.inputs == {"observation.state": ("observation", "state")}
    assert LeRobotSpec.kind == "lerobot"


def test_each_input_needs_a_key():
    message = (
        "inputs must name a key for each input of the LeRobot policy, ['observation.state'], got "
        "['observation.images.top']."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LeRobotSpec(CONFIG, {"observation.images.top": ("observation", "image")})


def test_without_lerobot_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lerobot", None)
    for name in [name for name in sys.modules if name.startswith("lerobot.")]:
        monkeypatch.delitem(sys.modules, name)
    spec = LeRobotSpec(CONFIG, {"observation.state": ("observation", "state")})
    message = "lerobot is not installed: pip install 'rftf-torchrl[lerobot]'."
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        spec.build()
