"""A LeRobot checkpoint cannot name code of its own to run."""

from __future__ import annotations

import json
import re

import pytest

from rftf_torchrl.policies.lerobot.processors import refuse_foreign_steps

OWN = "lerobot.processor.rename_processor.RenameObservationsProcessorStep"


def write(folder, *steps, name="policy_preprocessor.json"):
    (folder / name).write_text(json.dumps({"steps": steps}), encoding="utf-8")


@pytest.mark.parametrize("name", ["policy_preprocessor.json", "policy_postprocessor.json"])
def test_a_class_of_another_package_is_refused_and_not_imported(tmp_path, name):
    write(tmp_path, {"registry_name": "device_processor", "config": {}}, {"class": OWN}, name=name)
    refuse_foreign_steps(tmp_path)
    hostile = {"class": "subprocess.Popen", "config": {"args": "touch ran", "shell": True}}
    write(tmp_path, {"class": OWN}, hostile, name=name)
    message = f"{tmp_path / name}: step 1 is the class 'subprocess.Popen', which is none of"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        refuse_foreign_steps(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("step", [{}, {"class": None}, {"class": "lerobotx.steal.Run"}, "a"])
def test_a_step_without_a_sound_name_is_refused(tmp_path, step):
    write(tmp_path, step)
    with pytest.raises(ValueError, match="step 0 is "):
        refuse_foreign_steps(str(tmp_path))
