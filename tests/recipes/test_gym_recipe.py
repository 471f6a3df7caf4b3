"""An environment of Gymnasium in the recipes, whose demonstrations are brought."""

import re

import pytest
import torch

from rftf_torchrl import DemonstrationWriter, Episode, make_simulator

pytestmark = pytest.mark.recipe


def test_demonstrations_are_brought(configure, tmp_path):
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_bc import clone

    config = configure("env=gym", "cloning.steps=2", f"output={tmp_path}", "device=cpu")
    message = (
        f"gym has no expert to record, and there is no {tmp_path / 'demos'}: write demonstrations "
        "with rftf_torchrl.DemonstrationWriter, and give their folder as demos.path=<folder>"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        collect(config)
    simulator = make_simulator(config.env)
    hill = simulator.factory("train", tmp_path)(Episode("hill", 0))
    frame = hill.rollout(1)[0].select("observation", "instruction")
    frames = torch.stack([frame.set("action", torch.zeros(1))] * 3)
    with DemonstrationWriter(
        tmp_path / "demos", tasks=simulator.tasks.values(), simulator="gym"
    ) as writer:
        writer.add_episode(frames, task_id=0, success=True)
    assert collect(config) == 0
    assert clone(config).is_file()
