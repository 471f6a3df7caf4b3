"""Pieces of bytes with a line each: whole after a kill, refused where they are damaged."""

import errno
import json

import pytest

from rftf_torchrl.rows_file import RowsFile

PIECES = [b"abc", b"", b"defgh"]


@pytest.fixture
def file(tmp_path):
    rows = RowsFile(tmp_path / "image")
    for number, piece in enumerate(PIECES):
        rows.append(memoryview(piece), {"number": number, "rate": 0.1})
    return rows.file


def pieces(file):
    rows = RowsFile(file)
    assert [record["number"] for record in rows.records] == list(range(len(rows.records)))
    return [rows.read(place) for place in range(len(rows.records))]


def changed_line(file, place, **entries):
    lines = file.with_name("image.jsonl")
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    rows[place] |= entries
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_what_was_appended_is_there_and_can_be_gone_on_with(file):
    assert pieces(file) == PIECES
    rows = RowsFile(file)
    rows.cut(1)
    rows.append(b"xy", {"number": 1})
    assert pieces(file) == [b"abc", b"xy"]


def test_what_follows_a_piece_that_could_not_be_written_is_whole(file, monkeypatch):
    rows = RowsFile(file)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rftf_torchrl.rows_file.to_disk", full)
    with pytest.raises(OSError, match="No space left on device"):
        rows.append(b"lost", {"number": 3})
    monkeypatch.undo()
    rows.append(b"next", {"number": 3})
    assert pieces(file) == [*PIECES, b"next"]


@pytest.mark.parametrize("kept", range(8))
def test_bytes_that_are_cut_off_lose_the_pieces_they_were_of(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    assert pieces(file) == (PIECES[:2] if kept >= 3 else [])


def test_half_a_line_does_not_count(file):
    lines = file.with_name("image.jsonl")
    lines.write_bytes(lines.read_bytes()[:-1])
    assert pieces(file) == PIECES[:2]
    assert file.read_bytes() == b"abc"


def without_line(file, place):
    lines = file.with_name("image.jsonl")
    kept = lines.read_bytes().splitlines(keepends=True)
    del kept[place]
    lines.write_bytes(b"".join(kept))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda file: file.write_bytes(b"abcdXfgh"), 3),
        (lambda file: file.write_bytes(b"Xbcdefgh"), 1),
        (lambda file: file.write_bytes(b"abccdefgh"), 3),
        (lambda file: changed_line(file, 1, end=4), 2),
        (lambda file: changed_line(file, 1, end=-1), 2),
        (lambda file: changed_line(file, 1, end="3"), 2),
        (lambda file: changed_line(file, 2, record={"number": 2, "rate": 0.2}), 3),
        (lambda file: changed_line(file, 0, digest=""), 1),
        (lambda file: without_line(file, 1), 2),
        (lambda file: file.with_name("image.jsonl").write_bytes(b"\xff\n"), 1),
        (lambda file: file.with_name("image.jsonl").write_bytes(b"3\n"), 1),
        (lambda file: file.with_name("image.jsonl").write_bytes(b'{"end": 0, "record": {}}\n'), 1),
    ],
)
def test_damage_is_refused_by_file_and_line(file, damage, line):
    damage(file)
    before = file.read_bytes()
    with pytest.raises(ValueError) as raised:
        RowsFile(file)
    assert str(raised.value) == (
        f"{file}.jsonl, line {line}: the line, or its bytes in image, are damaged or of an earlier "
        "version. Remove both files, and they are made again."
    )
    assert file.read_bytes() == before
