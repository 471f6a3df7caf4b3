import re

import pytest
import torch

from rftf_torchrl import action_windows


def slow_windows(demonstrations, chunk_size):
    frames, chunks, pads = [], [], []
    action = demonstrations.frames["action"]
    for episode in demonstrations.episodes:
        last = episode.stop - 2
        for t in range(episode.start, last + 1):
            frames.append(t)
            chunks.append([action[min(t + i, last)].tolist() for i in range(chunk_size)])
            pads.append([t + i > last for i in range(chunk_size)])
    return torch.tensor(frames), torch.tensor(chunks), torch.tensor(pads)


@pytest.mark.parametrize("chunk_size", [1, 3, 6, 9])
@pytest.mark.parametrize("episodes", [None, [1, 4]])
def test_windows_equal_a_loop_over_frames(demonstrations, chunk_size, episodes):
    selected = demonstrations.select(episodes=episodes)
    windows = action_windows(selected, chunk_size=chunk_size)
    frame, chunk, pad = slow_windows(selected, chunk_size)
    assert len(windows) == selected.num_frames - len(selected.episodes)
    assert torch.equal(windows.frame, frame)
    assert torch.equal(windows.targets["vla_action", "chunk"], chunk)
    assert torch.equal(windows.targets["action_is_pad"], pad)


def test_batch_reads_the_frames_asked_for(demonstrations):
    windows = action_windows(demonstrations, chunk_size=3)
    indices = torch.tensor([31, 0, 5])
    batch = windows.batch(indices)
    assert batch.batch_size == (3,)
    for key in (("observation", "image"), ("instruction", "mask"), "task_id"):
        assert torch.equal(batch[key], demonstrations.frames[key][windows.frame[indices]])
    assert torch.equal(
        batch["vla_action", "chunk"], windows.targets["vla_action", "chunk"][indices]
    )
    assert not demonstrations.frames["action_is_pad"][windows.frame].any()
    assert "action" not in batch


def test_batch_reads_only_the_keys_asked_for(demonstrations):
    windows = action_windows(demonstrations, chunk_size=3, keys=[("observation", "state")])
    assert {str(key) for key in windows.batch(torch.arange(2)).keys(True, True)} == {
        "('observation', 'state')",
        "('vla_action', 'chunk')",
        "action_is_pad",
    }


def test_bad_arguments(demonstrations):
    with pytest.raises(ValueError, match=re.escape("chunk_size is 0, expected 1 or more.")):
        action_windows(demonstrations, chunk_size=0)
    with pytest.raises(KeyError) as caught:
        action_windows(demonstrations, chunk_size=2, keys=["depth"])
    assert caught.value.args == (
        f"Key 'depth' is not in the demonstrations of {demonstrations.root}.",
    )


def test_default_keys_leave_out_the_image_of_state_only_demonstrations(state_only, demonstrations):
    with_image = action_windows(demonstrations, chunk_size=3)
    windows = action_windows(state_only, chunk_size=3)
    assert set(with_image.keys) - set(windows.keys) == {("observation", "image")}
    batch = windows.batch(torch.tensor([31, 0, 5]))
    assert set(batch["observation"].keys()) == {"state"}
    assert torch.equal(
        batch["observation", "state"],
        state_only.frames[windows.frame[[31, 0, 5]]]["observation", "state"],
    )
    assert torch.equal(
        windows.targets["vla_action", "chunk"], with_image.targets["vla_action", "chunk"]
    )
