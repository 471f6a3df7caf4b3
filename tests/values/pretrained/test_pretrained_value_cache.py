"""Value models on cached features of a frozen tower: the same rewards, and what they learn."""

import pytest
import torch
from tensordict import MemoryMappedTensor, TensorDict

pytest.importorskip("transformers")

from _tower_inputs import frames

from rftf_torchrl import (
    TemporalRankingLoss,
    ValueReward,
    cache_image_features,
    keep_image_features,
    on_cached_features,
    temporal_value_model,
)


def transitions(count):
    data = frames(count + 1)
    data["instruction"] = data["instruction"][:1].expand(count + 1)
    following = data[1:].select("observation")
    following["success"] = torch.zeros(count, 1, dtype=torch.bool)
    following["terminated"] = torch.zeros(count, 1, dtype=torch.bool)
    return data[:-1].clone().set("next", following.clone())


def test_cached_features_give_the_same_reward_and_the_tower_runs_once_per_frame(config):
    model = temporal_value_model(config("dinov2", "bert")).eval()
    data = transitions(5)
    expected = ValueReward(model, gamma=0.9)(data.clone())
    seen = []
    model.network.image.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    cached = cache_image_features(model, data.clone(), dtype=torch.float32, minibatch=4)
    assert sum(seen) == 6
    found = ValueReward(on_cached_features(model), gamma=0.9)(cached.exclude("observation"))
    assert sum(seen) == 6
    for key in ("temporal_value", ("next", "temporal_value"), ("next", "dense_reward")):
        torch.testing.assert_close(found[key], expected[key])


def test_next_frames_that_do_not_follow_get_features_of_their_own(config):
    model = temporal_value_model(config("clip"))
    data = transitions(5)[torch.tensor([3, 0, 1, 4])]
    cached = cache_image_features(model, data, dtype=torch.float32)
    alone = cache_image_features(model, data["next"].clone(), dtype=torch.float32)
    torch.testing.assert_close(cached["next", "features", "image"], alone["features", "image"])


def test_what_is_learned_on_cached_features_is_the_models(config):
    model = temporal_value_model(config("siglip"))
    data = frames(3, 4)
    view = on_cached_features(model)
    loss = TemporalRankingLoss(view)
    before = model.raw(data).detach()
    tower = [p.clone() for p in model.network.image.parameters()]
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    loss(cache_image_features(model, data))["loss_ranking"].backward()
    optimizer.step()
    view.calibration.fit(torch.zeros(1), torch.full((1,), 3.0), mode="global")
    assert not torch.equal(model.raw(data), before)
    assert float(model.calibration.scale) == 3.0
    for old, new in zip(tower, model.network.image.parameters(), strict=True):
        assert torch.equal(old, new)
    values, expected = view(data.copy())["temporal_value"], model(data.copy())["temporal_value"]
    torch.testing.assert_close(values, expected, atol=5e-3, rtol=0)  # half precision


def moving_square(clips, frames, generator, shuffle):
    """Clips of a square that moves right under one instruction and left under the other."""
    start = torch.rand(clips, generator=generator) * 6
    direction = torch.randint(2, (clips,), generator=generator)
    time = torch.rand(clips, frames, generator=generator).sort(-1).values
    place = start[:, None] + torch.where(direction[:, None] > 0, time, 1 - time) * 18
    if shuffle:
        order = torch.rand(clips, frames, generator=generator).argsort(-1)
        place = place.gather(1, order)
    column = torch.arange(32)
    inside = (column >= place[..., None]) & (column < place[..., None] + 8)
    image = (inside[..., None, None, :] * 200 + 20).to(torch.uint8).expand(-1, -1, 3, 32, -1)
    tokens = (3 + direction)[:, None, None].expand(clips, frames, 1)
    return TensorDict(
        {
            "observation": {"image": image.contiguous()},
            "instruction": {"tokens": tokens, "mask": torch.ones_like(tokens).bool()},
        },
        [clips, frames],
    )


@pytest.mark.slow
@pytest.mark.parametrize(("shuffle", "low", "high"), [(False, 0.85, 1.0), (True, 0.35, 0.65)])
def test_a_frozen_random_tower_learns_order_and_nothing_from_shuffled_time(
    config, shuffle, low, high
):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = temporal_value_model(config("dinov2", features=32))
    view = on_cached_features(model)
    loss = TemporalRankingLoss(view)
    clips = cache_image_features(model, moving_square(64, 6, generator, shuffle))
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss(clips)["loss_ranking"].backward()
        optimizer.step()
    held_out = cache_image_features(model, moving_square(64, 6, generator, shuffle=False))
    accuracy = float(loss(held_out)["pairwise_accuracy"])
    assert low < accuracy <= high


class Killed(BaseException):
    """A process that is killed cannot catch it."""


@pytest.mark.parametrize("after", [0, 1, 2])
def test_features_on_the_disk_go_on_after_a_kill(config, tmp_path, after):
    """Bit for bit those in memory, and no frame twice."""
    model = temporal_value_model(config("dinov2"))
    data = frames(7)
    expected = cache_image_features(model, data.clone(), minibatch=3)["features", "image"]
    seen = []

    def killed(module, args, out):
        if len(seen) == after + 1:  # the first is one frame, for its shape
            raise Killed
        seen.append(len(args[0]))

    hook = model.network.image.register_forward_hook(killed)
    with pytest.raises(Killed):
        keep_image_features(model, data, tmp_path, minibatch=3)
    hook.remove()
    (file,) = (path for path in tmp_path.iterdir() if len(path.name) == 16)
    with file.open("ab") as opened:
        opened.write(b"half a piece")
    again = []
    model.network.image.register_forward_hook(lambda m, args, out: again.append(len(args[0])))
    kept = keep_image_features(model, data, tmp_path, minibatch=3)
    assert again == [1, *[3, 3, 1][after:]]
    assert isinstance(kept["features", "image"], MemoryMappedTensor)
    assert torch.equal(kept["features", "image"], expected)
    assert ("features", "image") not in data.keys(True)
    count = len(again)
    keep_image_features(model, data, tmp_path, minibatch=3)
    assert again[count:] == [1]


def test_features_of_another_tower_are_others(config, tmp_path):
    data = frames(3)
    for name in ("dinov2", "clip", "clip"):
        model = temporal_value_model(config(name))
        kept = keep_image_features(model, data, tmp_path)["features", "image"]
        expected = cache_image_features(model, data.clone())["features", "image"]
        assert torch.equal(kept, expected)
    with torch.no_grad():
        next(model.network.image.parameters()).add_(1)
    kept = keep_image_features(model, data, tmp_path)["features", "image"]
    assert not torch.equal(kept, expected)
    with pytest.raises(KeyError, match="there is no image at"):
        keep_image_features(model, data.exclude(("observation", "image")), tmp_path)


def test_features_of_other_frames_are_others(config, tmp_path):
    """Also where only a frame in the middle differs."""
    model, data = temporal_value_model(config("dinov2")), frames(5)
    keep_image_features(model, data, tmp_path, minibatch=2)
    data["observation", "image"][2] = 255 - data["observation", "image"][2]
    kept = keep_image_features(model, data, tmp_path, minibatch=2)["features", "image"]
    expected = cache_image_features(model, data.clone(), minibatch=2)["features", "image"]
    assert torch.equal(kept, expected)
