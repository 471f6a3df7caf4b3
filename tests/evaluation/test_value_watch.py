"""The value of frames as they come: hysteresis, sizes, speed, and what is refused."""

import re

import pytest
import torch
from own_value import Brightness, Sum

from rftf_torchrl import (
    EncoderConfig,
    HashTokenizer,
    TemporalValueModel,
    ValueWatch,
    temporal_value_model,
)

MODEL = Brightness().build(None)


def frame(level):
    return torch.full((3, 12, 16), round(240 * level), dtype=torch.uint8)


def test_done_begins_and_ends_after_some_frames_in_a_row():
    watch = ValueWatch(MODEL, "open it", done_above=0.9, undone_below=0.5, hold=2)
    levels = [0.0, 1.0, 0.8, 1.0, 1.0, 0.6, 0.4, 0.6, 0.4, 0.4, 1.0]
    done = [False, False, False, False, True, True, True, True, True, False, False]
    seen = [watch(frame(level)) for level in levels]
    assert [each.done for each in seen] == done
    assert [each.value for each in seen] == pytest.approx(levels, abs=0.01)


def test_an_instruction_that_the_model_does_not_know_is_named(caplog):
    model = temporal_value_model(EncoderConfig(image_size=16))
    tokens = HashTokenizer()("open it")[0].reshape(1, -1)
    model.calibration.fit(torch.zeros(1), torch.ones(1), tokens, tokens)
    ValueWatch(model, "open it")
    assert not caplog.records
    ValueWatch(model, "close it")
    assert "the value model is not calibrated for 'close it'" in caplog.text


def test_a_new_episode_is_not_done():
    watch = ValueWatch(MODEL, "open it", hold=2)
    assert [watch(frame(1)).done for _ in range(2)] == [False, True]
    watch.reset()
    assert [watch(frame(1)).done for _ in range(2)] == [False, True]
    assert watch.speed()["frames"] == 4


def test_the_speed():
    watch = ValueWatch(MODEL, "open it")
    latencies = [watch(frame(0)).latency for _ in range(5)]
    speed = watch.speed()
    assert speed["frames"] == 5
    assert speed["median_latency"] == pytest.approx(sorted(latencies)[2])
    assert speed["median_latency"] <= speed["latency_95"] <= max(latencies) * 1.001
    assert 0 < speed["frames_per_second"] <= 1 / min(latencies)


def test_a_frame_is_resized_to_the_size_of_the_training(tmp_path):
    torch.manual_seed(0)
    model = temporal_value_model(EncoderConfig(image_size=16))
    whole = torch.randint(256, (3, 48, 64), dtype=torch.uint8)
    small = torch.nn.functional.interpolate(whole[None], (16, 16), mode="bilinear", antialias=True)
    assert ValueWatch(model, "open it")(whole).value == ValueWatch(model, "open it")(small[0]).value
    made_by = {"data.path": "videos", "data.image_size": 24, "data.max_words": 5}
    model.save(tmp_path / "value.safetensors", made_by=made_by)
    loaded = TemporalValueModel.load(tmp_path / "value.safetensors")
    assert (loaded.image_size, loaded.max_words) == (24, 5)
    of_a_simulator = {"data.path": None, "data.image_size": 24, "env.image_size": 16}
    model.save(tmp_path / "value.safetensors", made_by=of_a_simulator)
    loaded = TemporalValueModel.load(tmp_path / "value.safetensors")
    assert (loaded.image_size, loaded.max_words) == (16, None)


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [
        (
            ValueError,
            lambda: ValueWatch(Sum().build(None), "open it"),
            "the value model reads ('observation', 'state'), which a video does not have: train "
            "one on images and instructions alone (data=..., or env.image_size=64)",
        ),
        (
            ValueError,
            lambda: ValueWatch(MODEL, "open it", done_above=0.5, undone_below=0.6),
            "undone_below=0.6: must be at most done_above=0.5",
        ),
        (ValueError, lambda: ValueWatch(MODEL, "open it", hold=0), "hold=0: must be at least 1"),
        (
            ValueError,
            lambda: ValueWatch(MODEL, "open it all", max_words=2),
            "The instruction 'open it all' has 3 tokens, but max_length is 2. Raise max_length, or "
            "shorten the instruction.",
        ),
        (
            TypeError,
            lambda: ValueWatch(MODEL, "open it")(frame(0).float()),
            "frames has dtype torch.float32; expected torch.uint8.",
        ),
        (
            ValueError,
            lambda: ValueWatch(MODEL, "open it")(frame(0)[None]),
            "frames has shape [1, 1, 3, 12, 16]; expected [T, 3, height, width] with at least one "
            "frame.",
        ),
        (ValueError, lambda: ValueWatch(MODEL, "open it").speed(), "no frame has been watched yet"),
    ],
)
def test_what_is_refused(error, call, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
