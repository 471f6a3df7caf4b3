"""No reader of data runs code, whatever a file says."""

import json
import pickle
import shutil
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pytest
import torch
from _videos import write_hdf5, write_lerobot
from pyarrow import parquet
from tensordict import NonTensorData
from torch import nn
from torchrl.checkpoint import CheckpointError

from rftf_torchrl import (
    BadEpisode,
    RunCheckpoints,
    TemporalValueModel,
    load_demonstrations,
    load_policy,
    video_episodes,
    write_synthetic_demonstrations,
)
from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.weights_file import write_safetensors

TYPES = ("tensordict.tensorclass.NonTensorData", "tensordict._lazy.LazyStackedTensorDict", "os.x")


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


@pytest.fixture
def bomb(tmp_path):
    """The bytes of a pickle, and the file that would show that it ran."""
    fired = tmp_path / "fired"
    return pickle.dumps(Bomb(fired)), fired


def plant(meta, pickled, kind):
    """Make a folder of tensors name a class, with a pickle beside it."""
    content = json.loads(meta.read_text(encoding="utf-8"))
    content["_type"] = f"<class '{kind}'>"
    meta.write_text(json.dumps(content), encoding="utf-8")
    (meta.parent / "other.pickle").write_bytes(pickled)


def test_the_pickle_would_run_where_it_is_admitted(tmp_path, bomb):
    pickled, fired = bomb
    NonTensorData(data={"a": 1}, batch_size=[]).memmap(tmp_path / "data")
    (tmp_path / "data" / "other.pickle").write_bytes(pickled)
    pickle.loads(pickled).close()
    assert fired.exists()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("part", ["", "observation", "instruction"])
def test_demonstrations(tmp_path, bomb, kind, part):
    pickled, fired = bomb
    root = write_synthetic_demonstrations(tmp_path / "demos")
    (root / "digests.json").unlink()
    plant(root / "frames" / part / "meta.json", pickled, kind)
    with pytest.raises(DemonstrationError, match="which is not read"):
        load_demonstrations(root)
    assert not fired.exists()


@pytest.mark.parametrize("name", ["../../x", "a/b", ".."])
def test_demonstrations_stay_in_their_folder(tmp_path, name):
    root = write_synthetic_demonstrations(tmp_path / "demos")
    (root / "digests.json").unlink()
    meta = root / "frames" / "meta.json"
    content = json.loads(meta.read_text(encoding="utf-8"))
    content[name] = content["action"]
    meta.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DemonstrationError, match="leaves the folder"):
        load_demonstrations(root)


def checkpoint(folder):
    model = nn.Linear(2, 1)
    checkpoints = RunCheckpoints(folder, model=model, progress={"steps": 1})
    return checkpoints, checkpoints.save(1)


def rewrite(file, change):
    """Write an archive again with some members changed or added."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("kind", TYPES)
def test_a_checkpoint_that_names_a_class(tmp_path, bomb, kind):
    pickled, fired = bomb
    checkpoints, file = checkpoint(tmp_path / "checkpoints")

    def change(members):
        name = "components/0000-model/state/meta.json"
        meta = json.loads(members[name]) | {"_type": f"<class '{kind}'>"}
        members[name] = json.dumps(meta).encode()
        members["components/0000-model/state/other.pickle"] = pickled

    rewrite(file, change)
    with pytest.raises(CheckpointError, match=r"it is no checkpoint of this library: it holds"):
        checkpoints.load(file)
    with pytest.raises(FileNotFoundError, match="all 1 checkpoints are damaged"):
        checkpoints.load()
    assert not fired.exists()


@pytest.mark.parametrize("name", ["state.pt", "state.tdz", "state.tdc"])
def test_a_checkpoint_with_another_payload(tmp_path, bomb, name):
    pickled, fired = bomb
    checkpoints, file = checkpoint(tmp_path / "checkpoints")
    rewrite(file, lambda members: members.update({f"components/0000-model/{name}": pickled}))
    with pytest.raises(CheckpointError, match=f"it holds 'components/0000-model/{name}'"):
        checkpoints.load(file)
    assert not fired.exists()


def test_a_checkpoint_read_by_another_adapter(tmp_path):
    checkpoints, file = checkpoint(tmp_path / "checkpoints")

    def change(members):
        manifest = json.loads(members["manifest.json"])
        manifest["components"]["model"]["adapter"] = "torchrl.pickle"
        members["manifest.json"] = json.dumps(manifest).encode()

    rewrite(file, change)
    with pytest.raises(CheckpointError, match=r"component 'model' is read by 'torchrl\.pickle'"):
        checkpoints.load(file)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = nn.Linear(2, 1)
    checkpoints = RunCheckpoints(tmp_path / "checkpoints", model=model)
    checkpoints.save(1)
    nn.init.constant_(model.bias, float("inf"))
    with pytest.raises(FloatingPointError, match="component 'model' has weights that are not"):
        checkpoints.save(2)
    assert checkpoints.load() == 1
    assert model.bias.isfinite().all()


def test_a_checkpoint_with_a_nan_is_passed_over(tmp_path):
    checkpoints, first = checkpoint(tmp_path / "checkpoints")
    second = first.with_name(first.name.replace("1", "2"))
    shutil.copy(first, second)
    nan = torch.full((2,), float("nan")).numpy().tobytes()
    rewrite(
        second,
        lambda m: m.update({"components/0000-model/state/tensor_00000000.memmap": nan}),
    )
    assert checkpoints.load() == 1


MODULE = """
import pathlib
pathlib.Path({fired!r}).touch()
class Spec:
    kind = "planted:Spec"
    build = from_dict = to_dict = observation_transform = None
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported."""
    fired = tmp_path / "fired"
    (tmp_path / "planted.py").write_text(MODULE.format(fired=str(fired)), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return fired


@pytest.mark.parametrize("kind", ["planted:Spec", "score"])
def test_a_value_model_that_names_code(tmp_path, planted, kind):
    options = {"model": "planted:Spec"} if kind == "score" else {}
    header = {
        **{"in_keys": ["x"], "tokens_key": "t", "out_key": "v", "config": None},
        **{"kind": kind, "options": options, "sizes": {"image_size": None, "state_dim": 3}},
    }
    metadata = {"format": "rftf_torchrl.TemporalValueModel.1", "model": json.dumps(header)}
    write_safetensors(tmp_path / "value.safetensors", {"a": torch.zeros(1)}, metadata)
    with pytest.raises(ValueError, match=f"names the kind '{kind}', whose code would be imported"):
        TemporalValueModel.load(tmp_path / "value.safetensors")
    assert not planted.exists()


def test_a_policy_that_names_code(tmp_path, planted):
    metadata = {"format": "rftf_torchrl.policy.2", "kind": "planted:Spec", "policy": "{}"}
    write_safetensors(tmp_path / "policy.safetensors", {"a": torch.zeros(1)}, metadata)
    with pytest.raises(ValueError, match="planted:Spec"):
        load_policy(tmp_path / "policy.safetensors")
    assert not planted.exists()


def decoded(root, **options):
    """Read all episodes of a source; what is wrong with them."""
    problems = []
    for episode in video_episodes(root, **options):
        try:
            if isinstance(episode, BadEpisode):
                problems.append(episode.problem)
            else:
                episode.read()
        except ValueError as error:
            problems.append(str(error))
    return problems


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.gif", "a/0.png"])
def test_a_video_that_is_a_pickle(tmp_path, bomb, name):
    pickled, fired = bomb
    (tmp_path / "set" / name).parent.mkdir(parents=True)
    (tmp_path / "set" / name).write_bytes(pickled)
    (problem,) = decoded(tmp_path / "set", options={"instruction": "open"})
    assert "cannot be decoded" in problem or "is no image" in problem
    assert not fired.exists()


def test_hdf5_with_pickles(tmp_path, bomb):
    """In place of the images, of the instruction and of the outcome."""
    pickled, fired = bomb
    write_hdf5(tmp_path / "set.hdf5")
    with h5py.File(tmp_path / "set.hdf5", "a") as file:
        del file["data/demo_0/obs/agentview_rgb"]
        opaque = np.void(pickled)
        file["data/demo_0/obs/agentview_rgb"] = np.array([[[[opaque]]]])
        file["data"].attrs["problem_info"] = opaque
        file["data/demo_1"].attrs["success"] = np.frombuffer(pickled, np.uint8)[:1]
    assert decoded(tmp_path / "set.hdf5") == [
        "expected one camera: choose among none (data.options.camera)",
        "success is 128, expected true, false or nothing",
    ]
    assert not fired.exists()


def test_a_lerobot_data_set_with_pickles(tmp_path, bomb):
    """In place of an image, a video, and the extension type of a column."""
    pickled, fired = bomb
    write_lerobot(tmp_path / "pictures", dtype="image", episodes=1)
    (table,) = tmp_path.glob("pictures/data/*/*.parquet")
    rows = parquet.read_table(table).to_pylist()
    for row in rows:
        row["observation.images.front"]["bytes"] = pickled
    changed = pa.Table.from_pylist(rows)
    number = changed.schema.get_field_index("task_index")
    mark = {"ARROW:extension:name": "arrow.py_extension_type"}
    field = changed.schema.field(number).with_metadata(
        {**mark, "ARROW:extension:metadata": pickled}
    )
    parquet.write_table(changed.cast(changed.schema.set(number, field)), table)
    (problem,) = decoded(tmp_path / "pictures")
    assert problem.startswith("it has no image, or a damaged one (")
    write_lerobot(tmp_path / "films", codec="libx264", episodes=1)
    (film,) = tmp_path.glob("films/videos/*/*/*.mp4")
    film.write_bytes(pickled)
    assert decoded(tmp_path / "films") == [
        "file-000.mp4 cannot be decoded (Invalid data found when processing input)"
    ]
    assert not fired.exists()


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_captions_that_name_code(tmp_path, planted, name):
    """A caption, a feature of LeRobot's, or an index is text; none of them names a reader."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.mp4").write_bytes(b"")
    text = "file,instruction,task\na.mp4,planted:Spec,planted:Spec\n"
    if name.endswith("jsonl"):
        text = json.dumps({"file": "a.mp4", "instruction": "!!python/name:planted.Spec"})
    (tmp_path / "set" / name).write_text(text, encoding="utf-8")
    assert decoded(tmp_path / "set") == [
        "a.mp4 cannot be decoded (Invalid data found when processing input)"
    ]
    assert not planted.exists()
