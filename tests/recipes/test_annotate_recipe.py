"""``rftf annotate`` and ``rftf watch`` on tiny videos, with no simulator."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from _videos import brightening, write_film, write_lerobot
from pyarrow import parquet

from rftf_torchrl import EncoderConfig, VideoEpisode, temporal_value_model
from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.recipes.annotate import annotate
from rftf_torchrl.recipes.watch import watch

pytestmark = pytest.mark.recipe

OWN = ["value.kind=own_value:Brightness", "data.image_size=16", "device=cpu"]
TINY = [*OWN, "evaluation.video_size=64", "annotate.videos=2"]
FILMS = {
    "closed.mp4": (brightening(12)[::-1], "close the drawer", "true"),
    "cut_off.mp4": (brightening(12, last=170), "open the drawer", ""),
    "failed.mp4": (brightening(12, last=60), "open the drawer", "true"),
    "idle.mp4": (brightening(12, first=4, last=4), "open the drawer", "false"),
    "opened.mp4": (brightening(12), "open the drawer", ""),
    "succeeded.mp4": (brightening(12), "open the drawer", "false"),
    "wrong_words.mp4": (brightening(12), "close the drawer", ""),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for name, (frames, _, _) in FILMS.items():
        write_film(root / name, frames)
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "instruction", "success"])
        table.writerows([name, *said] for name, (_, *said) in FILMS.items())
    return root


@pytest.fixture(scope="module")
def annotated(configure, videos, tmp_path_factory):
    """The configuration of a run, and its report."""
    output = tmp_path_factory.mktemp("run")
    before = {file: file.read_bytes() for file in sorted(videos.iterdir())}
    config = configure(*TINY, f"data.path={videos}", f"output={output}")
    report = annotate(config)
    assert {file: file.read_bytes() for file in sorted(videos.iterdir())} == before
    return config, report


def test_the_flags(annotated):
    _, report = annotated
    flags = {each["name"]: [f["name"] for f in each["flags"]] for each in report["episodes"]}
    assert flags == {
        "closed.mp4": [],
        "cut_off.mp4": ["cut off"],
        "failed.mp4": ["failed", "mislabelled"],
        "idle.mp4": ["mislabelled", "idle"],
        "opened.mp4": [],
        "succeeded.mp4": ["succeeded"],
        "wrong_words.mp4": ["failed", "mislabelled"],
    }
    words = report["episodes"][6]["flags"][1]
    assert (words["detail"], words["threshold"]) == ("open the drawer", 0.2)
    assert words["number"] == pytest.approx(1.0, abs=0.05)


def test_what_is_written(annotated):
    config, report = annotated
    folder = Path(config.output, "annotation")
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == report
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "7 episodes, 84 frames; 5 episodes are flagged." in text
    assert "| 1 | cut_off.mp4 | open the drawer | cut off | 0." in text
    assert "| 3 | idle.mp4 | open the drawer | idle | 1.00 | 0.3 | frames 0 to 11 |" in text
    films = sorted(file.name for file in (folder / "videos").iterdir())
    assert films == [f"episode_00000{n}.{kind}" for n in (1, 2) for kind in ("mp4", "webp")], (
        "flagged episodes come first"
    )
    assert [file.name for file in (folder / "plots").iterdir()] == ["page_000.png"]
    table = parquet.read_table(folder / "progress.parquet")
    assert table.schema.names == ["index", "episode_index", "frame_index", "progress_dense"]
    assert table.column("index").to_pylist() == list(range(84))
    assert table.column("frame_index").to_pylist() == 7 * list(range(12))
    opened = table.column("progress_dense").to_pylist()[4 * 12 : 5 * 12]
    assert opened == pytest.approx(torch.linspace(0, 1, 12).tolist(), abs=0.02)


def test_other_thresholds_decode_nothing(configure, annotated, tmp_path, monkeypatch):
    config, _ = annotated
    output = shutil.copytree(config.output, tmp_path / "run")
    monkeypatch.setattr(VideoEpisode, "read", lambda self: pytest.fail("decoded"))
    settings = [f"data.path={config.data.path}", f"output={output}", "annotate.plots=0"]
    report = annotate(configure(*OWN, *settings, "annotate.videos=0", "annotate.failed_below=0.1"))
    names = {each["name"]: [f["name"] for f in each["flags"]] for each in report["episodes"]}
    assert names["failed.mp4"] == ["mislabelled"]
    assert not (output / "annotation" / "videos").exists()


def test_a_run_that_was_stopped_goes_on(configure, videos, tmp_path, monkeypatch):
    read, names = VideoEpisode.read, []

    def stops(self):
        names.append(self.name)
        if len(names) == 3:
            raise KeyboardInterrupt
        return read(self)

    config = configure(*OWN, f"data.path={videos}", f"output={tmp_path}", "annotate.videos=0")
    monkeypatch.setattr(VideoEpisode, "read", stops)
    with pytest.raises(KeyboardInterrupt):
        annotate(config)
    assert [file.name for file in (tmp_path / "annotation").glob("[!.]*")] == []
    annotate(config)
    assert names == [*sorted(FILMS)[:3], *sorted(FILMS)[2:]]


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_rows_of_a_lerobot_data_set(configure, tmp_path, version):
    write_lerobot(tmp_path / "set", version=version, dtype="image", episodes=3)
    files = sorted((tmp_path / "set" / "data").rglob("*.parquet"))
    rows = [row for file in files for row in parquet.read_table(file).to_pylist()]
    settings = [f"data.path={tmp_path}/set", f"output={tmp_path}/run", "data.episodes=[1,2]"]
    annotate(configure(*OWN, *settings, "annotate.videos=0", "annotate.plots=0"))
    table = parquet.read_table(tmp_path / "run" / "annotation" / "progress.parquet").to_pylist()
    names = ("index", "episode_index", "frame_index")
    assert [[row[name] for name in names] for row in table] == [
        [row[name] for name in names] for row in rows if row["episode_index"] in (1, 2)
    ]


def test_episodes_that_cannot_be_used(configure, videos, tmp_path):
    for name in ("opened.mp4", "failed.mp4"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes((videos / name).read_bytes())
    (tmp_path / "data" / "bad.mp4").write_bytes(b"no video")
    settings = [f"data.path={tmp_path}/data", f"output={tmp_path}/run", "annotate.videos=0"]
    settings += ['data.options.instruction="open it"']
    with pytest.raises(DemonstrationError, match=r"bad\.mp4: bad\.mp4 cannot be decoded"):
        annotate(configure(*OWN, *settings))
    report = annotate(configure(*OWN, *settings, "data.skip_bad=true"))
    assert [each["name"] for each in report["left_out"]] == ["bad.mp4"]
    text = (tmp_path / "run" / "annotation" / "report.md").read_text(encoding="utf-8")
    assert "## Left out\n\n- bad.mp4: bad.mp4 cannot be decoded" in text


def test_a_sentence_that_is_too_long_leaves_the_others_alone(configure, tmp_path):
    for name in ("a", "b"):
        write_film(tmp_path / "data" / f"{name}.mp4", brightening(3))
    (tmp_path / "data" / "a.txt").write_text("open it all", encoding="utf-8")
    (tmp_path / "data" / "b.txt").write_text("open it", encoding="utf-8")
    settings = [f"data.path={tmp_path}/data", f"output={tmp_path}/run", "annotate.videos=0"]
    report = annotate(configure(*OWN, *settings, "data.max_words=2", "data.skip_bad=true"))
    assert [each["problem"] for each in report["left_out"]] == [
        "The instruction 'open it all' has 3 tokens, but max_length is 2. Raise max_length, or "
        "shorten the instruction."
    ]
    assert [each["name"] for each in report["episodes"]] == ["b.mp4"]


def test_nothing_to_annotate(configure, videos, tmp_path):
    with pytest.raises(ValueError, match="nothing") as raised:
        annotate(configure(*OWN, f"output={tmp_path}"))
    assert str(raised.value) == (
        "there is nothing to annotate: give videos or a data set by data=<path>"
    )
    with pytest.raises(FileNotFoundError) as missing:
        annotate(configure(f"data.path={videos}", f"output={tmp_path}"))
    assert str(missing.value) == (
        f"there is no value model at {tmp_path}/value/value.safetensors: train one first by rftf "
        f"train-value output={tmp_path} with the same settings, or give value.path=<file>"
    )
    assert not list(tmp_path.glob("*.yaml"))
    file = tmp_path / "of_the_state.safetensors"
    temporal_value_model(EncoderConfig(image_size=None, state_dim=3)).save(file)
    with pytest.raises(ValueError, match=r"^the value model reads \('observation', 'state'\)"):
        annotate(configure(f"data.path={videos}", f"output={tmp_path}", f"value.path={file}"))


def test_a_value_model_of_another_size_annotates(configure, videos, tmp_path):
    """The images are resized as in its training, whatever data.image_size says."""
    file = tmp_path / "value.safetensors"
    model = temporal_value_model(EncoderConfig(image_size=16, state_dim=None))
    model.save(file, made_by={"env.image_size": 16})
    settings = [f"data.path={videos}", f"output={tmp_path}", f"value.path={file}", "device=cpu"]
    annotate(configure(*settings, "data.image_size=32", "annotate.videos=0", "annotate.plots=0"))
    assert (tmp_path / "annotation" / "report.md").is_file()


WATCH = [*OWN, "output=unused", 'watch.instruction="open the drawer"', "watch.hold=2"]


def test_watching_a_video(configure, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film = write_film(tmp_path / "a.mp4", brightening(25), rate=10)
    speed = watch(configure(*WATCH, f"watch.source={film}", "watch.done_above=0.8"))
    assert speed["frames"] == 25
    *lines, last = capsys.readouterr().out.splitlines()
    shape = r" +(\d+\.\d) s  value +(-?\d\.\d{3})  (done|not done) +\d+\.\d ms"
    said = [re.fullmatch(shape, line).groups() for line in lines]
    assert [(time, done) for time, _, done in said] == [
        ("0.0", "not done"),
        ("1.0", "not done"),
        ("2.0", "not done"),
        ("2.1", "done"),
    ]
    assert [float(value) for _, value, _ in said] == pytest.approx(
        [0, 10 / 24, 20 / 24, 21 / 24], abs=0.02
    )
    ending = r"25 frames, \d+\.\d a second; latency: median \d+\.\d ms, 95% below \d+\.\d ms"
    assert re.fullmatch(ending, last)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"], "nothing is written"


def test_an_interrupt_ends_the_watch_with_the_speed(configure, tmp_path, capsys, monkeypatch):
    def frames(source, timeout):
        yield 0.0, torch.zeros(3, 16, 16, dtype=torch.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr("rftf_torchrl.recipes.watch.stream_frames", frames)
    assert watch(configure(*WATCH, "watch.source=0"))["frames"] == 1
    assert capsys.readouterr().out.splitlines()[1] == "stopped"


def test_nothing_to_watch(configure):
    with pytest.raises(ValueError, match="nothing") as raised:
        watch(configure(*OWN, "output=unused", "watch.source=0"))
    assert str(raised.value) == (
        "there is nothing to watch: give watch.source=<number of a camera, URL or file> and "
        'watch.instruction="<instruction>"'
    )
