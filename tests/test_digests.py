"""Digests of folders and of JSON."""

import json
import re

import pytest

from rftf_torchrl import (
    ConfigError,
    DemonstrationError,
    DemosConfig,
    EnvConfig,
    RunConfig,
    load_demonstrations,
    write_synthetic_demonstrations,
)
from rftf_torchrl.configs.artefacts import whole_demos
from rftf_torchrl.digests import BLOCK, digest_problems, read_record, write_digests, write_record

ADVICE = (
    "copy it again from where it is whole, or, where you changed it yourself, remove digests.json"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "large").write_bytes(bytes(BLOCK) + b"end")
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "empty").touch()
    (tmp_path / "frame.npz").write_bytes(b"has checksums of its own")
    write_digests(tmp_path)
    return tmp_path


def test_an_unchanged_folder_has_no_problem(folder):
    assert digest_problems(folder) == []
    before = (folder / "digests.json").read_bytes()
    write_digests(folder)
    assert (folder / "digests.json").read_bytes() == before
    assert set(json.loads(before)["sha256"]) == {"part/large", "small", "empty"}


def test_the_block_that_differs_is_named(folder):
    large = bytearray((folder / "part" / "large").read_bytes())
    large[-1] ^= 1
    (folder / "part" / "large").write_bytes(large)
    (folder / "small").write_bytes(b"smaller")
    (folder / "empty").unlink()
    last = "bytes 4194304 to 4194307"
    expected = {
        "part/large": f"part/large: differs from digests.json in {last}: {ADVICE}",
        "small": f"small: differs from digests.json in bytes 0 to 7: {ADVICE}",
        "empty": f"empty: missing, but digests.json names it: {ADVICE}",
    }
    assert sorted(digest_problems(folder)) == sorted(expected.values())
    assert digest_problems(folder, ["small"]) == [expected["small"]]
    (folder / "part" / "large").write_bytes(large[:5])
    (line,) = digest_problems(folder, ["part/large"])
    assert line == f"part/large: differs from digests.json in its length: {ADVICE}"


def test_a_file_that_has_no_digest_is_refused_where_others_have_one(folder):
    (folder / "new").touch()
    assert digest_problems(folder) == []
    assert digest_problems(folder, ["new"]) == [f"new: digests.json does not name it: {ADVICE}"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"block": 1, "sha256": 3}', "{"])
def test_damaged_digests(folder, text):
    (folder / "digests.json").write_text(text, encoding="utf-8")
    (line,) = digest_problems(folder)
    assert re.fullmatch(r"digests\.json: is damaged \(.+\): copy it again, or remove it", line)


def test_a_folder_of_an_earlier_version_has_no_problem(folder):
    (folder / "digests.json").unlink()
    (folder / "small").write_bytes(b"smaller")
    assert digest_problems(folder) == []


@pytest.mark.parametrize("validate", [True, False])
def test_demonstrations_that_differ_are_refused(tmp_path, validate):
    root = write_synthetic_demonstrations(tmp_path / "demos")
    load_demonstrations(root, validate=validate)
    frames = root / "frames" / "observation" / "state.memmap"
    content = bytearray(frames.read_bytes())
    content[40] ^= 1
    frames.write_bytes(content)
    if validate:
        message = (
            f"Demonstrations in {root}: 1 problem found:\n  - frames/observation/state.memmap: "
            f"differs from digests.json in bytes 0 to 312: {ADVICE}"
        )
        with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
            load_demonstrations(root)
    else:
        load_demonstrations(root, validate=False)
    index = root / "demonstrations.json"
    index.write_text(
        index.read_text(encoding="utf-8").replace("task-0", "task-9"), encoding="utf-8"
    )
    with pytest.raises(DemonstrationError, match=r"demonstrations\.json: differs from digests"):
        load_demonstrations(root, validate=validate)


def test_the_same_demonstrations_are_the_same_bytes(tmp_path):
    found = []
    for name in ("a", "b"):
        root = write_synthetic_demonstrations(tmp_path / name)
        found.append(
            {f.relative_to(root): f.read_bytes() for f in root.rglob("*.*") if f.is_file()}
        )
    assert found[0] == found[1]


def test_a_record_comes_back_without_its_digest(tmp_path):
    file = tmp_path / "ended.json"
    content = {"policy": "Grüße", "rates": [0.1, None], "deep": {"b": 1, "a": 2.0}}
    write_record(file, {**content, "rates": (0.1, float("nan"))})
    assert read_record(file) == content
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")), sort_keys=True), encoding="utf-8"
    )
    assert read_record(file) == content  # the space and the order between entries are free


@pytest.mark.parametrize(
    ("old", "new"), [("100", "101"), ("content_digest", "content_digesu"), ('256": "', '256": "a')]
)
def test_a_record_that_differs_is_refused(tmp_path, old, new):
    file = tmp_path / "ended.json"
    write_record(file, {"steps": 100})
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    message = (
        f"{file}: the entries differ from their digest: make it again or copy it again; where you "
        "changed it yourself, take out 'content_digest'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_record(file)


def test_a_record_without_a_digest_or_of_another_kind(tmp_path):
    file = tmp_path / "ended.json"
    file.write_text('{"steps": 100}', encoding="utf-8")
    assert read_record(file) == {"steps": 100}
    file.write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match="expected entries by name, got a list"):
        read_record(file)
    file.write_text('{"steps": ', encoding="utf-8")
    message = f"{file} is truncated or no JSON: make it again or copy it again"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_record(file)


@pytest.mark.metaworld
def test_a_run_may_leave_the_check_of_its_demonstrations_out(tmp_path):
    root = write_synthetic_demonstrations(tmp_path / "demos")
    frames = root / "frames" / "action.memmap"
    frames.write_bytes(bytes(frames.stat().st_size))
    for validate, error, what in (
        (True, DemonstrationError, "differs from digests"),
        (False, ConfigError, "was made with other settings"),  # of another simulator
    ):
        demos = DemosConfig(path=str(root), validate=validate)
        env = EnvConfig(tasks=["window-open"])
        config = RunConfig(output=str(tmp_path / "run"), demos=demos, env=env)
        with pytest.raises(error, match=what):
            whole_demos(config)
