"""Frames as they come from a file; what cannot be watched; the newest frame of a live source."""

import re
from threading import Event

import pytest
import torch
from _videos import brightening, write_film

from rftf_torchrl import StreamError, stream_frames
from rftf_torchrl.data.readers.decode import read_video
from rftf_torchrl.data.readers.stream import newest


def test_the_frames_of_a_file(tmp_path):
    film = write_film(tmp_path / "a.mp4", brightening(5), rate=10)
    times, frames = zip(*stream_frames(str(film)), strict=True)
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert torch.equal(torch.stack(frames), read_video(film))


def only_sound(path):
    import av
    import numpy as np

    with av.open(str(path), "w") as film:
        stream = film.add_stream("aac", rate=8000)
        sound = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        frame.sample_rate = 8000
        film.mux(stream.encode(frame))
        film.mux(stream.encode())


def test_what_cannot_be_watched(tmp_path, monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)  # which FFmpeg would ask
    only_sound(tmp_path / "sound.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    write_film(tmp_path / "whole.avi", brightening(5), codec="mjpeg", pix_fmt="yuvj420p")
    messages = {
        "film.txt": "the source 'film.txt' is no number of a camera, no URL, and no file that ends "
        "in .mp4, .m4v, .mov, .mkv, .webm, .avi, .gif",
        "none.mp4": "none.mp4 cannot be watched (No such file or directory)",
        "99": "99 cannot be watched (No such file or directory)",
        "http://127.0.0.1:9/": "http://127.0.0.1:9/ cannot be watched (Connection refused)",
        f"{tmp_path}/broken.mp4": f"{tmp_path}/broken.mp4 cannot be watched (Invalid data found "
        "when processing input)",
        f"{tmp_path}/sound.mp4": f"{tmp_path}/sound.mp4 has no video stream",
    }
    for source, message in messages.items():
        with pytest.raises(StreamError, match=f"^{re.escape(message)}$"):
            list(stream_frames(source, timeout=5.0))


def test_a_live_source_leaves_out_what_nobody_took():
    taken, given = Event(), Event()

    def source():
        yield 0
        taken.wait()
        yield from (1, 2, 3)
        given.set()

    frames = newest(source())
    assert next(frames) == 0
    taken.set()
    given.wait()
    assert list(frames) == [3]


def test_an_error_of_a_live_source_comes_through():
    def source():
        yield 0
        raise StreamError("the cable is out")

    frames = newest(source())
    assert next(frames) == 0
    with pytest.raises(StreamError, match=r"^the cable is out$"):
        next(frames)


def test_a_live_source_ends_when_nobody_looks():
    ended, again = Event(), Event()

    def source():
        try:
            yield 0
            again.wait()
            while True:
                yield 1
        finally:
            ended.set()

    frames = newest(source())
    assert next(frames) == 0
    frames.close()
    again.set()
    assert ended.wait(60)
