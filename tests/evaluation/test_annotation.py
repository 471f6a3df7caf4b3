"""What flags an episode, by hand."""

import pytest
import torch

from rftf_torchrl import AnnotateConfig, EpisodeFlag, flag_episode, plot_episode_values
from rftf_torchrl.evaluation.annotation import FLAGS, longest_idle

SETTINGS = AnnotateConfig()
RISING = torch.linspace(0, 1, 11)
UP_TO_HALF = torch.linspace(0, 0.75, 11)
LEVEL_AT_LAST = torch.cat([torch.linspace(0, 0.25, 6), torch.full([5], 0.25)])


@pytest.mark.parametrize(
    ("values", "given", "flags"),
    [
        (RISING, {}, []),
        (RISING, {"success": True, "others": {"close it": 0.5}, "idle": (3, 5)}, []),
        (LEVEL_AT_LAST, {}, [EpisodeFlag("failed", 0.25, 0.5)]),
        (LEVEL_AT_LAST, {"success": True}, [EpisodeFlag("failed", 0.25, 0.5)]),
        (LEVEL_AT_LAST, {"success": False}, []),
        (RISING, {"success": False}, [EpisodeFlag("succeeded", 1.0, 0.8)]),
        (
            LEVEL_AT_LAST + 0.5,
            {"others": {"close it": 0.5, "open it": 1.25}},
            [EpisodeFlag("mislabelled", 0.5, 0.2, "open it")],
        ),
        (RISING, {"others": {"open it": 1.125}}, []),
        (RISING, {"idle": (2, 8)}, [EpisodeFlag("idle", 0.5, 0.3, "frames 2 to 7")]),
        (UP_TO_HALF, {}, [EpisodeFlag("cut off", 0.15, 0.1)]),
        (UP_TO_HALF, {"success": False}, []),
    ],
)
def test_flags(values, given, flags):
    found = flag_episode(values, SETTINGS, **given)
    assert [(f.name, f.threshold, f.detail) for f in found] == [
        (f.name, f.threshold, f.detail) for f in flags
    ]
    assert [f.number for f in found] == pytest.approx([f.number for f in flags])


def test_thresholds_are_settings():
    assert flag_episode(UP_TO_HALF, AnnotateConfig(cut_off_rise=0.2)) == []
    low = AnnotateConfig(failed_below=0.9, cut_off_rise=0.2)
    assert [flag.name for flag in flag_episode(UP_TO_HALF, low)] == ["failed"]
    assert list(FLAGS) == ["failed", "succeeded", "mislabelled", "idle", "cut off"]


def pictures(*levels):
    levels = torch.tensor(levels, dtype=torch.uint8)
    return levels[:, None, None, None].expand(-1, 3, 4, 4)


def test_idle_is_where_neither_value_nor_picture_leaves_the_first_frame():
    still = torch.zeros(6)
    assert longest_idle(still, pictures(9, 9, 9, 9, 9, 9), SETTINGS) == (0, 6)
    assert longest_idle(still, pictures(0, 9, 10, 10, 9, 30), SETTINGS) == (1, 5)
    assert longest_idle(still, pictures(0, 1, 2, 3, 4, 5), SETTINGS) == (0, 2), "a slow drift moves"
    moved = torch.tensor([0.0, 0.0, 0.0, 0.5, 0.5, 0.9])
    assert longest_idle(moved, pictures(9, 9, 9, 9, 9, 9), SETTINGS) == (0, 3)
    later = torch.tensor([0.0, 0.6, 0.6, 0.6, 1.2, 1.2, 1.2, 1.2]) * SETTINGS.idle_value
    assert longest_idle(later, pictures(*[9] * 8), SETTINGS) == (1, 8)


def test_a_page_of_values(tmp_path):
    curves = {"episode 0\nno flag": RISING, "episode 1\nfailed": LEVEL_AT_LAST}
    path = plot_episode_values(curves, tmp_path / "page.png", flagged=["episode 1\nfailed"])
    assert path.read_bytes()[:4] == b"\x89PNG"
