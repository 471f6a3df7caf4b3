import logging
import os
import random
import re
import shutil
import signal
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from torch import nn
from torchrl.checkpoint import CheckpointError

from rftf_torchrl import RunCheckpoints, TemporalValueModel
from rftf_torchrl.errors import UserError
from rftf_torchrl.training.checkpoint import _RNGState


def training(width=3, layers=2):
    actor = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
    optimizer = torch.optim.Adam(actor.parameters(), lr=1e-2)
    return {"actor": actor, "optimizer": optimizer, "progress": {"episodes": 0}}


def iterate(parts):
    loss = parts["actor"](torch.randn(4, 3)).square().mean()
    loss.backward()
    parts["optimizer"].step()
    parts["optimizer"].zero_grad()
    parts["progress"]["episodes"] += 10


def state(parts):
    return [parameter.clone() for parameter in parts["actor"].parameters()]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    torch.manual_seed(0)
    parts = training()
    checkpoints = RunCheckpoints(tmp_path, **parts)
    iterate(parts)
    checkpoints.save(1)
    iterate(parts)
    expected = state(parts)
    draws = (random.random(), np.random.rand(), torch.rand(3).tolist())

    torch.manual_seed(99)
    resumed = training()
    progress = resumed["progress"]
    assert RunCheckpoints(tmp_path, **resumed).load() == 1
    assert progress == {"episodes": 10}
    iterate(resumed)
    assert all(torch.equal(a, b) for a, b in zip(state(resumed), expected, strict=True))
    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == draws


def test_the_newest_few_are_kept(tmp_path):
    checkpoints = RunCheckpoints(tmp_path / "deep" / "er", keep=2, **training())
    for step in (0, 5, 10):
        assert checkpoints.save(step).is_file()
    assert [file.name for file in checkpoints.files()] == [
        "checkpoint-000000000005.torchrl",
        "checkpoint-000000000010.torchrl",
    ]
    assert len(list(checkpoints.folder.iterdir())) == 2
    assert checkpoints.load(checkpoints.files()[0]) == 5


def test_a_kill_before_the_oldest_is_removed_leaves_none_too_many(tmp_path, monkeypatch):
    parts = training()
    checkpoints = RunCheckpoints(tmp_path, keep=2, **parts)
    checkpoints.save(0)
    checkpoints.save(5)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._rotation, "prune", lambda: None)
        checkpoints.save(10)
    RunCheckpoints(tmp_path, keep=2, **parts).load()
    assert len(checkpoints.files()) == 3
    RunCheckpoints(tmp_path, keep=2, **parts).clear()
    assert [file.stem[-2:] for file in checkpoints.files()] == ["05", "10"]


def test_a_part_of_the_components(tmp_path):
    torch.manual_seed(0)
    parts = training()
    RunCheckpoints(tmp_path, **parts).save(3)
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    torch.manual_seed(7)
    expected = torch.rand(())
    torch.manual_seed(7)
    assert RunCheckpoints(tmp_path, actor=other).load(components=["actor"]) == 3
    assert torch.rand(()) == expected
    assert torch.equal(other[1].weight, parts["actor"][1].weight)


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[content.index(b"tensor_00000000.memmap") + 30] ^= 0xFF
    file.write_bytes(content)


def empty(file):
    os.truncate(file, 0)


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, empty])
def test_a_damaged_newest_file_falls_back_to_the_one_before(tmp_path, caplog, damage):
    parts = training()
    checkpoints = RunCheckpoints(tmp_path, **parts)
    checkpoints.save(1)
    expected = state(parts)
    iterate(parts)
    damage(checkpoints.save(2))

    resumed = training()
    checkpoints = RunCheckpoints(tmp_path, **resumed)
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load() == 1
    assert all(torch.equal(a, b) for a, b in zip(state(resumed), expected, strict=True))
    assert "checkpoint-000000000002.torchrl is passed over: it" in caplog.text

    checkpoints.save(2)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint-000000000001.torchrl",
        "checkpoint-000000000002.damaged",
        "checkpoint-000000000002.torchrl",
    ]
    assert checkpoints.load() == 2


def test_all_damaged(tmp_path):
    checkpoints = RunCheckpoints(tmp_path, **training())
    for step in (1, 2):
        checkpoints.save(step)
    for file in checkpoints.files():
        truncate(file)
    message = f"No checkpoint to load in {tmp_path}: all 2 checkpoints are damaged."
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        checkpoints.load()
    file = checkpoints.files()[0]
    with pytest.raises(UserError, match=re.escape(f"{file} cannot be loaded: it is trunc")):
        checkpoints.load(file)


@pytest.mark.parametrize("name", ["", "missing"])
def test_folder_without_checkpoints(tmp_path, name):
    folder = tmp_path / name
    message = f"No checkpoint to load in {folder}: there is none."
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        RunCheckpoints(folder, **training()).load()


def test_missing_file(tmp_path):
    file = tmp_path / "checkpoint-000000000001.torchrl"
    with pytest.raises(
        CheckpointError, match=re.escape(f"{file} cannot be loaded: it does not exist.")
    ):
        RunCheckpoints(tmp_path, **training()).load(file)


def test_another_architecture_is_one_error_and_changes_nothing(tmp_path):
    RunCheckpoints(tmp_path, **training(layers=2)).save(4)
    parts = training()
    parts["actor"] = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3, bias=False))
    before = state(parts)
    with pytest.raises(CheckpointError) as caught:
        RunCheckpoints(tmp_path, critic=nn.Linear(1, 1), **parts).load()
    assert str(caught.value) == (
        f"{tmp_path / 'checkpoint-000000000004.torchrl'} does not fit this run; was it saved by "
        "another architecture or configuration?\n"
        "  - component 'critic': not in the checkpoint, which has "
        "['actor', 'optimizer', 'progress', 'rng']\n"
        "  - component 'actor': '0.weight' has shape [3, 3] in the checkpoint, [5, 3] here\n"
        "  - component 'actor': '0.bias' has shape [3] in the checkpoint, [5] here\n"
        "  - component 'actor': '2.weight' is missing in the checkpoint\n"
        "  - component 'actor': '1.bias' is in the checkpoint only\n"
        "  - component 'actor': '1.weight' is in the checkpoint only"
    )
    assert all(torch.equal(a, b) for a, b in zip(state(parts), before, strict=True))


def test_a_long_list_of_differences_is_cut(tmp_path):
    RunCheckpoints(tmp_path, actor=nn.Linear(1, 1)).save(0)
    many = nn.Sequential(*(nn.Linear(1, 1) for _ in range(6)))
    with pytest.raises(CheckpointError) as caught:
        RunCheckpoints(tmp_path, actor=many).load()
    lines = str(caught.value).splitlines()
    assert len(lines) == 10
    assert lines[-1] == "  - component 'actor': 6 more"


@pytest.mark.parametrize("step", [3, 2])
def test_steps_must_increase(tmp_path, step):
    checkpoints = RunCheckpoints(tmp_path, **training())
    checkpoints.save(3)
    content = checkpoints.files()[0].read_bytes()
    message = (
        f"{tmp_path} has a checkpoint of step 3, so step {step} would overwrite it or be removed "
        "as the older one: use another folder."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        checkpoints.save(step)
    assert checkpoints.files()[0].read_bytes() == content


def save_and_die(folder):
    checkpoints = RunCheckpoints(folder, model=nn.Linear(2, 2))
    checkpoints.save(1)
    shutil.copyfileobj = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
    checkpoints.save(2)


def test_a_kill_in_the_middle_of_saving_leaves_the_previous_one(tmp_path):
    process = get_context("fork").Process(target=save_and_die, args=[tmp_path])
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) > 1
    checkpoints = RunCheckpoints(tmp_path, model=nn.Linear(2, 2))
    assert checkpoints.load() == 1
    checkpoints.save(2)
    assert [file.name for file in sorted(tmp_path.iterdir())] == [
        "checkpoint-000000000001.torchrl",
        "checkpoint-000000000002.torchrl",
    ]


def test_random_states_of_other_devices_are_left_out(caplog):
    generators = _RNGState()
    saved = generators.state_dict()
    expected = torch.rand(())
    count = torch.cuda.device_count() + 1
    saved["torch_cuda"] = [torch.zeros(16, dtype=torch.uint8)] * count
    with caplog.at_level(logging.WARNING):
        generators.load_state_dict(saved)
    assert torch.rand(()) == expected
    assert f"the random states of {count} CUDA devices" in caplog.text


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=re.escape("keep is 0, expected 1 or more.")):
        RunCheckpoints(tmp_path, keep=0)
    message = "The component name 'rng' is taken by the random generators."
    with pytest.raises(ValueError, match=re.escape(message)):
        RunCheckpoints(tmp_path, rng=nn.Linear(1, 1))


def test_a_calibration_of_another_number_of_instructions_is_resumed(tmp_path):
    def model(instructions):
        values = TemporalValueModel(nn.Linear(2, 1), in_keys=["state"])
        if instructions:
            tokens = torch.arange(instructions)[:, None]
            scores = torch.zeros(instructions), torch.ones(instructions)
            values.calibration.fit(*scores, tokens, tokens)
        return values

    saved = model(2)
    RunCheckpoints(tmp_path, value_model=saved).save(1)
    for live in (model(0), model(1), model(2)):
        assert RunCheckpoints(tmp_path, value_model=live).load() == 1
        assert torch.equal(live.calibration.tokens, saved.calibration.tokens)


class Dumped:
    """A component that TorchRL writes in a way of its own."""

    def dump(self, path):
        (path / "own").write_text("", encoding="utf-8")

    def load(self, path):
        """Reads nothing."""

    def state_dict(self):
        return {}


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    checkpoints = RunCheckpoints(tmp_path, model=nn.Linear(2, 1), other=Dumped())
    with pytest.raises(CheckpointError, match="could not be loaded again: "):
        checkpoints.save(1)
    assert not list(tmp_path.iterdir())


def test_a_nan_anywhere_leaves_the_last_sound_checkpoint_the_newest(tmp_path):
    model = nn.BatchNorm1d(2)
    checkpoints = RunCheckpoints(tmp_path, model=model)
    checkpoints.save(1)
    model.running_mean.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"^the tensor .* has a NaN, so that "):
        checkpoints.save(2)
    assert checkpoints.load() == 1
    assert model.running_mean.tolist() == [0, 0]


class WithNotes(nn.Linear):
    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        self.notes = state


def test_a_module_with_a_state_of_its_own_comes_back(tmp_path):
    model = WithNotes(2, 1)
    checkpoints = RunCheckpoints(tmp_path, model=model)
    checkpoints.save(1)
    assert checkpoints.load() == 1
    assert model.notes == {"a": 1}
