"""Videos that are read back, captions that change the strip alone, and recorded episodes."""

import re

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from _envs import value_model
from _evaluation_fakes import PictureWalkEnv, constant_policy
from PIL import Image
from tensordict.nn import TensorDictModule
from torchrl.envs import GymEnv

from rftf_torchrl import (
    DecisionEnv,
    Episode,
    Task,
    final_value_auc,
    overlay_value,
    record_videos,
    render_rollout,
    side_by_side,
    write_video,
)
from rftf_torchrl.evaluation.rollouts import _values


def frames(count, height=32, width=48):
    levels = torch.linspace(0, 255, count).to(torch.uint8)
    return levels[:, None, None, None].expand(count, 3, height, width).clone()


def read(path):
    with imageio.get_reader(path, format="FFMPEG") as reader:
        return np.stack([*iter(reader.iter_data())]), reader.get_meta_data()


def test_video_reads_back(tmp_path):
    path = write_video(frames(21, 32, 482), tmp_path / "film.mp4", fps=5)
    film, data = read(path)
    assert film.shape == (21 + 5, 32, 482, 3)
    assert (data["codec"], data["fps"]) == ("h264", 5.0)
    assert data["pix_fmt"].startswith("yuv420p")
    levels = film.mean((1, 2, 3))
    assert levels[:21] == pytest.approx(np.linspace(0, 255, 21), abs=6)
    assert levels[21:] == pytest.approx(255, abs=6), "the last frame stays for a second"
    assert sorted(tmp_path.iterdir()) == [path, path.with_suffix(".webp")]


def test_a_film_moves_in_a_markdown_page(tmp_path):
    path = write_video(frames(3, 32, 480), tmp_path / "film.mp4", fps=10)
    with Image.open(path.with_suffix(".webp")) as film:
        assert (film.format, film.size, film.n_frames) == ("WEBP", (480, 32), 3)
        assert film.info["loop"] == 0
        levels, seconds = [], 0.0
        for number in range(3):
            film.seek(number)
            levels.append(np.asarray(film.convert("L")).mean())
            seconds += film.info["duration"] / 1000
    assert levels == pytest.approx([0, 127, 255], abs=6)
    # 14 times 0.1 s each, and the last one for a second more
    assert seconds == pytest.approx(3 * 1.4 + 1.0)


def test_small_and_short_films_are_enlarged_and_slowed_down(tmp_path):
    film, data = read(write_video(frames(2, 32, 50), tmp_path / "film.mp4"))
    # ten times as wide; 20 times 0.1 s each, and the last one for a second more
    assert film.shape == (2 * 20 + 10, 320, 500, 3)
    assert data["fps"] == 10
    assert data["duration"] == pytest.approx(5.0)


def test_odd_sizes_become_even(tmp_path):
    film, _ = read(write_video(frames(2, 31, 481), tmp_path / "film.mp4"))
    assert film.shape[1:] == (32, 482, 3)
    assert film[-1].min() > 245


def test_side_by_side_waits_at_the_last_frame():
    left, right = frames(2), frames(5, width=16)
    film = side_by_side(left, right)
    assert film.shape == (5, 3, 32, 48 + 4 + 16)
    assert torch.equal(film[:2, ..., :48], left)
    assert torch.equal(film[4, ..., :48], left[-1])
    assert torch.equal(film[..., 52:], right)
    assert (film[..., 48:52] == 255).all()


def test_overlay_leaves_the_picture_alone():
    film = frames(4, 64, 128)
    out = overlay_value(film, torch.tensor([0.0, 0.3, 0.6, 1.0]), success=True, title="open it")
    strip = out.shape[2] - 64
    assert out.shape == (4, 3, 64 + strip, 128)
    assert strip % 2 == 0
    assert torch.equal(out[:, :, :64], film)
    caption, curve = out[:, :, 64 : 64 + strip // 3], out[:, :, 64 + strip // 2 :]
    assert all(torch.equal(caption[0], caption[t]) for t in range(4))
    ink = [(curve[t] != 255).sum().item() for t in range(4)]
    assert len(set(ink)) == 4
    blue = [((curve[t, 0] == 0) & (curve[t, 2] == 178)).any(0).nonzero().max() for t in range(4)]
    assert blue == sorted(blue)
    assert blue[-1] > 110


def test_overlay_tells_the_outcome_by_word_and_colour():
    film = frames(1, 64, 128)
    won, lost, labelled, unknown, blank = (
        overlay_value(film, None, success=success, title="open it", label=label)[0, :, 64:]
        for success, label in ((True, ""), (False, ""), (True, "after"), (None, "x"), (None, ""))
    )

    def green(strip):
        return (strip[1].int() - strip[0] > 50).sum()

    def red(strip):
        return (strip[0].int() - strip[1] > 50).sum()

    assert green(won) > 10
    assert red(won) == 0
    assert red(lost) > 10
    assert green(lost) == 0
    assert green(labelled) > green(won)
    assert green(unknown) == red(unknown) == 0
    assert (unknown != 255).sum() > (blank != 255).sum()


@pytest.mark.parametrize("width", [64, 192])
def test_overlay_height_does_not_depend_on_the_text(width):
    film, values = frames(1, 64, width), torch.zeros(1)
    short, long = (
        overlay_value(film, values, success=False, title=text)
        for text in ("go", "press the button from above behind the wall with both hands")
    )
    assert short.shape == long.shape


def test_render_rollout():
    env = PictureWalkEnv()
    film, path = render_rollout(env, constant_policy(0.5), 2, size=8)
    # from 0.2 in moves of 0.5 to 3.0: six moves, two chunks
    assert film.shape == (3, 3, 8, 8)
    assert film.dtype == torch.uint8
    assert film[:, 0, 0, 0].tolist() == [int(x / 4 * 255) for x in (0.2, 1.7, 3.2)]
    assert path.batch_size == (2,)
    assert path["next", "success"].flatten().tolist() == [False, True]
    assert path["next", "done"].flatten().tolist() == [False, True]
    assert path["observation", "state"][0, 0] == pytest.approx(0.2)
    again, _ = render_rollout(env, constant_policy(0.5), 2, size=8)
    assert torch.equal(again, film)
    resets, policy = [], constant_policy(0.5)
    policy.reset = lambda: resets.append(True)
    render_rollout(env, policy, 2, size=8)
    assert len(resets) == 1


class DrawnHill(DecisionEnv):
    """A car on a hill whose image's brightness is its speed."""

    def picture(self, size):
        speed = self._current["observation"][1].item()
        return torch.full((3, size, size), round(128 + 1000 * speed), dtype=torch.uint8)


def test_a_film_shows_every_action_and_the_value_of_what_the_policy_saw():
    task = Task(0, "hill", "drive up the hill")
    env = DrawnHill(GymEnv("MountainCarContinuous-v0"), task, chunk_size=3, horizon=4)
    film, path = render_rollout(env, constant_policy(1.0), 0, size=8)
    assert len(film) == 4 * 3 + 1
    assert path["pictures"].tolist() == path["executed"].sum(-1).tolist() == [3] * 4
    levels = film[:, 0, 0, 0]
    assert len(set(levels.tolist())) == 13, "it speeds up in each action"
    seen = path["next", "observation", "state"][:, 1]
    assert levels[3::3].tolist() == [round(128 + 1000 * speed) for speed in seen.tolist()]

    speed = TensorDictModule(
        lambda state: state[..., 1:], [("observation", "state")], ["temporal_value"]
    )
    values = _values(speed, path)
    torch.testing.assert_close(values[3::3], seen)
    assert (values[:3] == 0).all()
    assert torch.equal(values[3:6], seen[:1].expand(3))


def test_a_rendered_trajectory_fits_the_other_tools():
    _, path = render_rollout(PictureWalkEnv(), constant_policy(0.5), 0, size=8)
    path["temporal_value"] = torch.zeros(2, 1)
    path["next", "temporal_value"] = torch.ones(2, 1)
    path["task_id"] = torch.zeros(2, 1, dtype=torch.int64)
    assert final_value_auc(path)["tasks"]["0"]["successes"] == 1


def test_record_videos(tmp_path):
    envs = []

    def make_env(episode):
        envs.append(PictureWalkEnv())
        return envs[-1]

    episodes = [Episode("reach", 2, "go right"), Episode("push", 0)]
    paths = record_videos(
        make_env,
        constant_policy(0.5),
        episodes,
        tmp_path / "films",
        before=constant_policy(0.1),
        value_model=value_model(),
        size=64,
    )
    assert [path.name for path in paths] == ["00-reach-2.mp4", "01-push-0.mp4"]
    assert all(env.closed for env in envs)
    film, _ = read(paths[0])
    # the policy before needs all of the four decisions: five images, eight times each
    assert film.shape[0] == 5 * 8 + 10
    # 238 pixels for each are enough; four times 64 are the next
    assert film.shape[2] == 256 + 4 + 256


def test_record_videos_of_one_policy(tmp_path):
    (path,) = record_videos(
        lambda episode: PictureWalkEnv(), constant_policy(0.5), [Episode("a", 0)], tmp_path, size=64
    )
    film, _ = read(path)
    assert (film.shape[0], film.shape[2]) == (3 * 14 + 10, 8 * 64)


def test_the_environment_is_closed_where_the_policy_fails(tmp_path):
    env = PictureWalkEnv()
    with pytest.raises(TypeError, match="must be Number"):
        record_videos(
            lambda episode: env, constant_policy("fast"), [Episode("a", 0)], tmp_path, size=8
        )
    assert env.closed
    assert list(tmp_path.iterdir()) == []


def test_a_crash_is_not_filmed_as_a_failure(tmp_path, caplog):
    class CrashingEnv(PictureWalkEnv):
        def _step(self, tensordict):
            yes = torch.ones(1, dtype=torch.bool)
            return super()._step(tensordict).update({"crashed": yes, "truncated": yes, "done": yes})

    episode = Episode("a", 0)
    policy = constant_policy(0.1)
    assert record_videos(lambda episode: CrashingEnv(), policy, [episode], tmp_path, size=8) == []
    assert caplog.messages == [
        f"the episode of task {episode.task!r} with seed {episode.seed} crashed and is not recorded"
    ]
    assert list(tmp_path.iterdir()) == []


GOOD = frames(2)
BROKEN = [
    (
        TypeError,
        lambda path: write_video(GOOD.float(), path),
        "frames has dtype torch.float32; expected torch.uint8.",
    ),
    (
        ValueError,
        lambda path: write_video(GOOD.permute(0, 2, 3, 1), path),
        "frames has shape [2, 32, 48, 3]; expected [T, 3, height, width] with at least one frame.",
    ),
    (
        ValueError,
        lambda path: write_video(GOOD[:0], path),
        "frames has shape [0, 3, 32, 48]; expected [T, 3, height, width] with at least one frame.",
    ),
    (
        ValueError,
        lambda path: write_video(GOOD, "film.gif"),
        "the path 'film.gif' does not end in '.mp4'.",
    ),
    (
        ValueError,
        lambda path: write_video(GOOD, path, fps=0),
        "fps is 0, expected a number of frames a second above 0.",
    ),
    (
        ValueError,
        lambda path: side_by_side(GOOD, frames(2, height=16)),
        "before is 32 and after is 16 pixels high; expected the same height.",
    ),
    (
        ValueError,
        lambda path: overlay_value(GOOD, torch.zeros(3), success=True, title="go"),
        "values has 3 entries for 2 frames; expected one each.",
    ),
]


@pytest.mark.parametrize(("error", "call", "message"), BROKEN)
def test_broken_inputs(tmp_path, error, call, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call(tmp_path / "film.mp4")
