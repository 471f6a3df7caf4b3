import re
from dataclasses import replace

import pytest
import torch

from rftf_torchrl import sample_clips
from rftf_torchrl.data.format import Episode


def clips(demonstrations, seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    return sample_clips(
        demonstrations, **{"batch_size": 200, "frames": 4, "generator": generator, **kwargs}
    )


def test_frames_are_in_strict_time_order_within_one_episode(demonstrations):
    sample = clips(demonstrations)
    assert sample.batch_size == (200, 4)
    assert (sample["frame_index"].diff(dim=1) > 0).all()
    assert (sample["episode"] == sample["episode"][:, :1]).all()
    assert sample["frame_mask"].all()
    starts = demonstrations.spans[sample["episode"][..., 0], 0]
    frame = starts + sample["frame_index"][..., 0]
    for key in (("observation", "image"), ("observation", "state"), "task_id"):
        assert torch.equal(sample[key], demonstrations.frames[key][frame])


def test_every_episode_and_every_set_of_times_is_drawn(demonstrations):
    sample = clips(demonstrations.select(episodes=[0]), batch_size=2000)
    sets = {tuple(row) for row in sample["frame_index"][..., 0].tolist()}
    assert len(sets) == 15
    assert set(clips(demonstrations)["episode"].flatten().tolist()) == set(range(6))


def test_an_episode_is_drawn_as_often_whatever_its_length(demonstrations):
    short, long = Episode(0, 0, 0, 2, True), Episode(1, 0, 2, 34, True)
    sample = clips(replace(demonstrations, episodes=(short, long)), batch_size=400)
    padded = ~sample["frame_mask"].all(-1)
    assert 0.4 < padded.float().mean() < 0.6


def test_times_are_uniform(demonstrations):
    sample = clips(demonstrations.select(episodes=[0]), batch_size=6000, frames=2)
    count = sample["frame_index"].flatten().bincount().double()
    assert torch.allclose(count, torch.full((6,), 2000.0).double(), rtol=0.1)


def test_short_episodes_are_padded_with_their_last_frame(demonstrations):
    sample = clips(demonstrations, frames=7, batch_size=50)
    short = torch.isin(sample["episode"][:, 0, 0], torch.tensor([0, 2, 3, 5]))
    assert 0 < short.sum() < 50
    time = sample["frame_index"][..., 0]
    assert (time[short] == torch.tensor([0, 1, 2, 3, 4, 5, 5])).all()
    assert (sample["frame_mask"][short] == torch.tensor([True] * 6 + [False])).all()
    assert (time[~short] == torch.arange(7)).all()
    assert sample["frame_mask"][~short].all()
    assert (sample["episode"] == sample["episode"][:, :1]).all()


def test_shuffled_time_has_the_same_frames_in_another_order(demonstrations):
    ordered, shuffled = (
        clips(demonstrations, frames=7, shuffle_time=shuffle) for shuffle in (False, True)
    )
    assert torch.equal(shuffled["frame_index"].sort(1).values, ordered["frame_index"])
    assert torch.equal(shuffled["frame_mask"], ordered["frame_mask"])
    real = shuffled["frame_mask"][:, :-1] & shuffled["frame_mask"][:, 1:]
    rising = shuffled["frame_index"][..., 0].diff(dim=1) > 0
    assert 0.4 < rising[real].double().mean() < 0.6
    brightness = shuffled["observation", "image"][..., 0, 0, 0].long()
    last = demonstrations.spans.diff(dim=1)[shuffled["episode"][..., 0], 0] - 1
    assert torch.equal(brightness, (255 * shuffled["frame_index"][..., 0] / last).round().long())


@pytest.mark.parametrize("shuffle", [False, True])
def test_progress_is_the_share_of_the_episode_in_the_order_that_is_claimed(demonstrations, shuffle):
    sample = clips(demonstrations, frames=7, shuffle_time=shuffle)
    last = demonstrations.spans.diff(dim=1)[sample["episode"][..., 0]] - 1
    expected = sample["frame_index"].sort(1).values / last
    torch.testing.assert_close(sample["frame_progress"], expected)


def test_the_seed_decides(demonstrations):
    first, again, other = (clips(demonstrations, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first["frame_index"], again["frame_index"])
    assert not torch.equal(first["frame_index"], other["frame_index"])


def test_no_action_by_default(demonstrations):
    assert {str(key) for key in clips(demonstrations).keys(True, True)} == {
        "('observation', 'image')",
        "('observation', 'state')",
        "('instruction', 'tokens')",
        "('instruction', 'mask')",
        "task_id",
        "episode",
        "frame_mask",
        "frame_index",
        "frame_progress",
    }


ACTIONS = "holds actions, and clips are frames and instructions only: leave it out."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, expected 1 or more."),
        ({"frames": 1}, "frames is 1, expected 2 or more: order needs two."),
        ({"keys": ["action"]}, f"Key 'action' {ACTIONS}"),
        ({"keys": ["action_is_pad"]}, f"Key 'action_is_pad' {ACTIONS}"),
        ({"keys": [("vla_action", "chunk")]}, f"Key ('vla_action', 'chunk') {ACTIONS}"),
    ],
)
def test_bad_arguments(demonstrations, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        clips(demonstrations, **arguments)


def test_unknown_key(demonstrations):
    with pytest.raises(KeyError) as caught:
        clips(demonstrations, keys=["depth"])
    assert caught.value.args == (
        f"Key 'depth' is not in the demonstrations of {demonstrations.root}.",
    )


def test_default_keys_leave_out_the_image_of_state_only_demonstrations(state_only, demonstrations):
    sample, with_image = clips(state_only), clips(demonstrations)
    found, expected = (set(td.keys(True, True)) for td in (sample, with_image))
    assert expected - found == {("observation", "image")}
    assert all(torch.equal(sample[key], with_image[key]) for key in found)
