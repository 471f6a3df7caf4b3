"""Videos as they come: codecs, times, turned, odd, grey, and what cannot be decoded."""

import av
import numpy as np
import pytest
import torch
from _videos import brightening, turn_film, write_film
from PIL import Image

from rftf_torchrl import BadEpisodeError
from rftf_torchrl.data.readers.decode import read_video
from rftf_torchrl.data.readers.pictures import at_rate, picture, resized
from rftf_torchrl.files import climbs_out

CODECS = [
    ("a.mp4", "libx264", "yuv420p"),
    ("a.m4v", "libx264", "yuv420p"),
    ("a.mov", "mpeg4", "yuv420p"),
    ("a.mkv", "ffv1", "yuv444p"),
    ("a.webm", "libvpx-vp9", "yuv420p"),
    ("a.avi", "mpeg4", "yuv420p"),
    ("a.mkv", "ffv1", "gray"),
    ("a.mkv", "ffv1", "bgra"),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), CODECS)
def test_containers_and_codecs(tmp_path, name, codec, pix_fmt):
    made = brightening(6)
    if pix_fmt == "gray":
        made[:] = made[..., :1]
    frames = read_video(write_film(tmp_path / name, made, codec=codec, pix_fmt=pix_fmt))
    assert frames.dtype == torch.uint8
    shown = frames.permute(0, 2, 3, 1).int()
    assert (shown - torch.from_numpy(made.astype(np.int32))).abs().float().mean() < 3


def test_a_gif(tmp_path):
    first, *rest = (Image.fromarray(pixels) for pixels in brightening(5))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=100)
    assert read_video(tmp_path / "a.gif")[:, 0, 0, -1].tolist() == [0, 60, 120, 180, 240]


def test_an_odd_size(tmp_path):
    film = write_film(tmp_path / "a.mp4", brightening(4, 17, 23), pix_fmt="yuv444p")
    assert read_video(film).shape == (4, 3, 17, 23)
    assert read_video(film, size=8).shape == (4, 3, 8, 8)


@pytest.mark.parametrize(
    ("turns", "shape", "blue"),
    [(1, (24, 16), np.s_[0, :]), (2, (16, 24), np.s_[:, -1]), (3, (24, 16), np.s_[-1, :])],
)
def test_turned_metadata(tmp_path, turns, shape, blue):
    """The left half is blue; a telephone turns the image by quarters, clockwise."""
    film = turn_film(write_film(tmp_path / "a.mp4", brightening(3)), turns)
    frames = read_video(film)
    assert frames.shape == (3, 3, *shape)
    assert frames[0, 2][blue].float().mean() > 200
    assert frames[0, 2].float().mean() < 140


def test_a_rate(tmp_path):
    """By their own times, where these vary; the last frame is always there."""
    times = [0, 100, 200, 600, 1000, 1100]
    film = write_film(tmp_path / "a.mp4", brightening(6, last=250), times=times)
    shown = {
        fps: (read_video(film, fps=fps)[:, 0, 0, -1] / 50.0).round().tolist()
        for fps in (None, 5, 2)
    }
    assert shown == {None: [0, 1, 2, 3, 4, 5], 5: [0, 2, 3, 4, 5], 2: [0, 3, 4, 5]}


@pytest.mark.parametrize("rate", [24, 25, 29.97, 30, 50, 60])
def test_a_rate_of_even_times(rate):
    """Times rounded to milliseconds, as containers have them."""
    count = int(4 * rate)
    kept = list(at_rate(((round(i / rate, 3), i) for i in range(count)), 5))
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert 20 <= len(kept) <= 21
    assert max(np.diff(kept[:-1])) <= np.ceil(rate / 5)
    assert list(at_rate(((i / rate, i) for i in range(count)), 2 * rate)) == list(range(count))


def test_part_of_a_film(tmp_path):
    made = brightening(30, last=232)
    film = write_film(tmp_path / "a.mp4", made, g=7)
    frames = read_video(film, start=1.1, count=5)
    assert (
        frames[:, 0, 0, -1].int() - torch.tensor(made[11:16, 0, -1, 0].astype(int))
    ).abs().max() < 3
    with pytest.raises(BadEpisodeError) as raised:
        read_video(film, start=2.8, count=5)
    assert str(raised.value) == "it ends after 2 frames from 2.80 s, expected 5"


def noise():
    return np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)


def cut(name, codec="libx264"):
    def make(folder):
        film = write_film(folder / name, noise(), codec=codec)
        film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
        return film

    return make


def written(name, content):
    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def without_decoder(folder):
    film = write_film(folder / "a.mp4", brightening(5))
    film.write_bytes(film.read_bytes().replace(b"avc1", b"zzzz"))
    return film


def damaged(folder):
    film = write_film(folder / "a.mp4", noise())
    content = bytearray(film.read_bytes())
    for place in range(20_000, 60_000, 97):
        content[place] ^= 0xFF
    film.write_bytes(content)
    return film


def sound_alone(folder):
    with av.open(str(folder / "a.mp4"), "w") as film:
        stream = film.add_stream("aac", rate=8000)
        sound = np.zeros((1, 1024), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return folder / "a.mp4"


INVALID = "cannot be decoded (Invalid data found when processing input)"
CUT = (
    "it ends at 1.90 s of the 4.00 s that its header says: it is cut off; copy or download it again"
)
BAD = {
    "cut mp4": (cut("a.mp4"), f"a.mp4 {INVALID}"),
    "cut mkv": (cut("a.mkv"), CUT),
    "cut webm": (cut("a.webm", "libvpx-vp9"), CUT),
    "empty": (written("a.mp4", b""), f"a.mp4 {INVALID}"),
    "no video": (sound_alone, "it has no video stream"),
    "playlist": (
        written("a.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n"),
        f"a.mp4 {INVALID}",
    ),
    "list of other films": (
        written("a.mkv", b"ffconcat version 1.0\nfile /etc/hostname\n"),
        f"a.mkv {INVALID}",
    ),
    "unknown codec": (without_decoder, "a.mp4 cannot be decoded (Decoder not found)"),
    "damaged": (damaged, f"a.mp4 {INVALID}"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_decoded(tmp_path, case):
    make, message = BAD[case]
    with pytest.raises(BadEpisodeError) as raised:
        read_video(make(tmp_path))
    assert str(raised.value) == message


def test_a_cut_avi(tmp_path):
    film = write_film(tmp_path / "a.avi", noise(), codec="mpeg4")
    size = film.stat().st_size
    film.write_bytes(film.read_bytes()[:-100])
    with pytest.raises(BadEpisodeError) as raised:
        read_video(film)
    assert str(raised.value) == (
        f"it has {size - 100} bytes of the {size} that its header says: it is cut off; copy or "
        "download it again"
    )


def test_pictures(tmp_path):
    pixels = brightening(1)[0]
    turned = Image.Exif()
    turned[0x0112] = 6  # shown a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=turned)
    assert picture(tmp_path / "turned.jpg", None).shape == (3, 24, 16)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert picture(tmp_path / "grey.png", 8).shape == (3, 8, 8)
    Image.fromarray(np.dstack([pixels, pixels[..., :1]])).save(tmp_path / "alpha.png")
    assert torch.equal(picture(tmp_path / "alpha.png", None).permute(1, 2, 0), torch.tensor(pixels))
    file = tmp_path / "half.png"
    file.write_bytes((tmp_path / "alpha.png").read_bytes()[:60])
    with pytest.raises(BadEpisodeError, match=r"half\.png is no image, or a damaged one \("):
        picture(file, None)


def test_resizing_keeps_the_whole_picture():
    frames = torch.zeros(1, 3, 8, 16, dtype=torch.uint8)
    frames[..., 8:] = 200
    small = resized(frames, 4)
    assert small.shape == (1, 3, 4, 4)
    assert small[0, 0, 0].tolist()[::3] == [0, 200]


@pytest.mark.parametrize(
    ("name", "climbs"),
    [
        *[
            (name, True)
            for name in ("../a", "a/../../b", "/a", "C:\\a", "\\a", "a\\..\\b", "//a/b")
        ],
        *[(name, False) for name in ("a", "a/b.mp4", "..a/b", "a..b")],
    ],
)
def test_paths_that_leave_the_folder(name, climbs):
    assert climbs_out(name) is climbs
