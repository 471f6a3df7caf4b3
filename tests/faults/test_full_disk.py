"""A full disk is an error that names the file; what was there stays, and no process dies of it.

The disk is a small file system of its own, which only root may mount; elsewhere the tests that need
it are skipped, and those that limit the size of a file still run.
"""

import os
import re
import resource
import signal
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from rftf_torchrl import (
    CalvinDataset,
    CalvinWriter,
    DataConfig,
    DemonstrationWriter,
    MetricsFile,
    RunCheckpoints,
    TemporalValueModel,
    import_videos,
    load_demonstrations,
    read_metrics,
    write_synthetic_demonstrations,
    write_text,
    write_video,
)
from rftf_torchrl.calvin.chains.results import ChainFile, ChainResult
from rftf_torchrl.weights_file import write_safetensors

SIZE = 2**21
FULL = "No space left on device. Make room on the disk."


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system may be mounted here: {error}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def leave(disk, free):
    """Fill the disk until so many bytes are free."""
    found = os.statvfs(disk)
    (disk / "filled").write_bytes(bytes(found.f_bavail * found.f_frsize - free))


@pytest.fixture
def unchecked(monkeypatch):
    """As if another process took the space after it was checked."""
    for module in ("files", "data.writer", "training.checkpoint"):
        monkeypatch.setattr(f"rftf_torchrl.{module}.check_space", lambda *args: None)


def test_a_large_file_is_not_begun(disk):
    file = disk / "policy.safetensors"
    write_safetensors(file, {"a": torch.zeros(10)}, {})
    before = file.read_bytes()
    leave(disk, 2**18)
    message = f"Cannot write {file}: it needs 1.0 MiB, and 0.2 MiB are free. Make room on the disk."
    with pytest.raises(OSError, match=f"^{re.escape(message)}$") as caught:
        write_safetensors(file, {"a": torch.zeros(2**18)}, {})
    assert caught.value.errno == 28
    assert file.read_bytes() == before
    assert {path.name for path in disk.iterdir()} == {"filled", file.name}


def test_weights(disk, unchecked):
    file = disk / "value.safetensors"
    leave(disk, 2**16)
    model = TemporalValueModel(nn.Linear(300, 300), in_keys=["state"])
    with pytest.raises(OSError, match=f"^{re.escape(f'Cannot write {file}: {FULL}')}$"):
        model.save(file)
    assert [path.name for path in disk.iterdir()] == ["filled"]


@pytest.mark.parametrize("free", [2**16, 400_000])
def test_a_checkpoint_leaves_the_one_before(disk, unchecked, free):
    """Too little for the tensors that are mapped, or for the archive of them."""
    checkpoints = RunCheckpoints(disk / "checkpoints", model=nn.Linear(300, 300))
    checkpoints.save(1)
    leave(disk, free)
    file = disk / "checkpoints" / "checkpoint-000000000002.torchrl"
    with pytest.raises(OSError, match=f"^{re.escape(f'Cannot write {file}: {FULL}')}$"):
        checkpoints.save(2)
    assert checkpoints.load() == 1
    assert len(list((disk / "checkpoints").iterdir())) == 1
    (disk / "filled").unlink()
    checkpoints.save(2)
    assert checkpoints.load() == 2


def test_a_checkpoint_that_does_not_fit_is_not_begun(disk):
    leave(disk, 2**16)
    checkpoints = RunCheckpoints(disk / "checkpoints", model=nn.Linear(300, 300))
    with pytest.raises(OSError, match=r"it needs 0\.3 MiB, and 0\.1 MiB are free\. Make room"):
        checkpoints.save(1)


def episode(length):
    frames = torch.rand(length, 500)
    return {
        "observation": {"state": frames},
        "instruction": {
            "tokens": torch.ones(length, 3, dtype=torch.int64),
            "mask": torch.ones(length, 3, dtype=torch.bool),
        },
        "action": torch.zeros(length, 2),
    }


def record(root):
    from tensordict import TensorDict

    tasks = [{"id": 0, "name": "push", "instruction": "push the puck"}]
    with DemonstrationWriter(root, tasks=tasks, simulator="test") as writer:
        for _ in range(100):
            writer.add_episode(TensorDict(episode(50), [50]), task_id=0, success=True)


@pytest.mark.parametrize("checked", [True, False])
def test_demonstrations_keep_their_whole_episodes(disk, request, checked):
    if not checked:
        request.getfixturevalue("unchecked")
    root = disk / "demos"
    with pytest.raises(OSError, match=rf"^Cannot write demonstrations to {re.escape(str(root))}: "):
        record(root)
    found = load_demonstrations(root)
    assert not found.complete
    assert len(found.episodes) > 10
    assert [path.name for path in disk.iterdir()] == ["demos"]


def test_an_import_says_so_and_can_go_on(disk, unchecked, tmp_path):
    source = write_synthetic_demonstrations(tmp_path / "demos")
    data = DataConfig(path=str(source), image_size=4, max_words=2**14)
    with pytest.raises(OSError, match=f"^{re.escape(f'Cannot write {disk}/data: {FULL}')}$"):
        import_videos(data, disk / "data")
    assert {path.name for path in disk.iterdir()} == {".data.importing", ".data.lock"}
    subprocess.run(["mount", "-o", f"remount,size={8 * SIZE}", str(disk)], check=True)
    assert import_videos(data, disk / "data").complete


def test_a_recording_of_calvin_keeps_its_frames(disk):
    root, rng = disk / "calvin", np.random.default_rng(0)

    def record():
        with CalvinWriter(root) as writer:
            while True:
                picture = rng.integers(0, 255, (3, 100, 100), dtype=np.uint8)
                last = writer.add_frame(np.zeros(15), np.zeros(24), rgb_static=picture)
                if last % 10 == 9:
                    writer.mark(done=last)

    with pytest.raises(OSError, match=r"^Cannot write .*episode_\d{7}\.npz: No space left"):
        record()
    dataset = CalvinDataset(root)
    assert not dataset.complete
    assert len(dataset.read_frames(64, int(dataset.episodes[0, 1]) + 1)) > 2


def test_lines_that_are_appended(disk):
    metrics = MetricsFile(disk / "metrics.csv")
    metrics.write(0, {"loss": 0.5})
    chains = ChainFile(disk / "chains.jsonl", {"seed": 0})
    leave(disk, 0)

    def log():
        for step in range(1, 1000):
            metrics.write(step, {"loss": 0.5})

    def evaluate():
        for number in range(1000):
            chains.add(ChainResult(number, ("open_drawer",), (51,), 1))

    with pytest.raises(OSError, match=re.escape(f"Cannot write {metrics.path}: {FULL}")):
        log()
    assert metrics.path.read_text(encoding="utf-8").endswith("\n")
    assert (
        len(read_metrics(metrics.path))
        == len(metrics.path.read_text(encoding="utf-8").splitlines()) - 1
        > 1
    )
    with pytest.raises(OSError, match=re.escape(f"Cannot write {chains.path}: {FULL}")):
        evaluate()
    (disk / "filled").unlink()
    assert len(ChainFile(disk / "chains.jsonl", {"seed": 0}).results) > 0


def test_a_film(disk, monkeypatch):
    film = disk / "film.mp4"
    leave(disk, 20_000)
    frames = (torch.rand(10, 3, 128, 128) * 255).to(torch.uint8)
    with pytest.raises(OSError, match=re.escape(f"Cannot write {disk / 'film.webp'}: {FULL}")):
        write_video(frames, film)
    monkeypatch.setattr("PIL.Image.Image.save", lambda *args, **options: None)
    with pytest.raises(OSError, match=re.escape(f"Cannot write {film}: ")):  # in ffmpeg's words
        write_video(frames, film)
    assert sorted(path.name for path in disk.iterdir()) == ["filled", "film.webp"]


@contextmanager
def small_files():
    """A limit of the system for the size of a file, as a quota would be.

    Not a fixture: pytest writes the result of a test before fixtures end, and its own output may
    be a file that is longer than the limit.
    """
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@small_files()
def test_a_file_that_may_not_grow(tmp_path):
    file = tmp_path / "notes.txt"
    message = f"Cannot write {file}: File too large. Make room on the disk."
    with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
        write_text(file, "x" * 20_000)
    root = tmp_path / "demos"
    with pytest.raises(OSError, match=rf"^Cannot write .* {re.escape(str(root))}: File too large"):
        record(root)
    checkpoints = RunCheckpoints(tmp_path / "checkpoints", model=nn.Linear(300, 300))
    with pytest.raises(OSError, match=r"checkpoint-000000000001\.torchrl: File too large"):
        checkpoints.save(1)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]
