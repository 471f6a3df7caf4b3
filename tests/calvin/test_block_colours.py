"""The permutation of the blocks' colours: a group that acts on state, instruction and task."""

import re
from itertools import permutations

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from rftf_torchrl import (
    BLOCK_ORDER,
    EnvConfig,
    HashTokenizer,
    make_simulator,
    permute_block_colours,
    state_vector,
)
from rftf_torchrl.calvin.observation import BLOCK_ENTRIES
from rftf_torchrl.calvin.tasks import BLOCKS, TASKS

ALL = torch.tensor(list(permutations(range(3))))
ENTRIES = [("observation", "state"), ("instruction", "tokens"), ("instruction", "mask"), "task_id"]


def frames_of(tasks, *shape):
    """One frame, or a clip, of each task."""
    tokens, mask = HashTokenizer()([task.instruction for task in tasks])
    batch = [len(tasks), *shape]
    generator = torch.Generator().manual_seed(0)

    def over_time(entry):
        return entry.view(len(tasks), *[1] * len(shape), -1).expand(*batch, -1)

    return TensorDict(
        {
            "observation": {"state": torch.randn(*batch, 53, generator=generator)},
            "instruction": {"tokens": over_time(tokens), "mask": over_time(mask)},
            "task_id": over_time(torch.tensor([[task.id] for task in tasks])),
        },
        batch,
    )


EVERY = frames_of(list(TASKS.values()))


def rows(permutation, frames=EVERY):
    return permutation.expand(len(frames), 3)


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in ENTRIES)


@pytest.mark.parametrize("permutation", ALL)
def test_permuting_back_gives_the_same_bits(permutation):
    before = EVERY.clone()
    there = permute_block_colours(EVERY, rows(permutation))
    assert same(permute_block_colours(there, rows(permutation.argsort())), EVERY)
    assert same(EVERY, before), "the argument is left as it is"
    assert same(there, EVERY) == (permutation.tolist() == [0, 1, 2])


@pytest.mark.parametrize("first", ALL)
@pytest.mark.parametrize("second", ALL)
def test_two_permutations_are_one(first, second):
    one = permute_block_colours(permute_block_colours(EVERY, rows(first)), rows(second))
    assert same(one, permute_block_colours(EVERY, rows(second[first])))


@pytest.mark.parametrize("permutation", ALL)
def test_an_instruction_that_names_a_colour_names_the_other(permutation):
    """Of all tasks: words and task go together, and nothing else changes."""
    permuted = permute_block_colours(EVERY, rows(permutation))
    for task, row in zip(TASKS.values(), range(len(TASKS)), strict=True):
        colour = next((block for block in BLOCKS if block in task.instruction.split()), None)
        other = task
        if colour is not None:
            word = BLOCKS[permutation[BLOCKS.index(colour)]]
            other = TASKS[task.name.replace(f"_{colour}_", f"_{word}_")]
            assert other.instruction == task.instruction.replace(colour, word)
        assert permuted["task_id"][row].item() == other.id
        tokens = HashTokenizer()(other.instruction)[0][0]
        assert torch.equal(permuted["instruction", "tokens"][row], tokens)


def test_a_state_is_that_of_the_scene_with_the_blocks_in_each_others_places():
    rng = np.random.default_rng(0)
    robot_obs, scene_obs = rng.normal(size=15), rng.normal(size=24)
    moved = scene_obs.copy()
    blocks, places = scene_obs[6:].reshape(3, 6), moved[6:].reshape(3, 6)
    order = BLOCK_ORDER["A"]
    to = {"red": "pink", "pink": "blue", "blue": "red"}
    for block, other in to.items():
        places[order.index(other)] = blocks[order.index(block)]
    frames = frames_of([TASKS["open_drawer"]])
    frames["observation", "state"] = torch.from_numpy(
        state_vector(robot_obs, scene_obs, "A", privileged=True)
    )[None]
    permutation = torch.tensor([[BLOCKS.index(to[block]) for block in BLOCKS]])
    expected = state_vector(robot_obs, moved, "A", privileged=True)
    found = permute_block_colours(frames, permutation)["observation", "state"][0]
    assert torch.equal(found, torch.from_numpy(expected))


def test_all_frames_of_a_clip_are_permuted_alike():
    clips = frames_of([TASKS["lift_red_block_table"], TASKS["open_drawer"]], 4)
    permutation = torch.tensor([[1, 2, 0], [2, 1, 0]])
    permuted = permute_block_colours(clips, permutation)
    for time in range(4):
        assert same(permuted[:, time], permute_block_colours(clips[:, time], permutation))


def test_the_share_of_rows_and_no_more_is_changed():
    simulator = make_simulator(EnvConfig("calvin", ["open_drawer"], image_size=None))
    many = frames_of([TASKS["lift_red_block_table"]] * 4000)
    generator = torch.Generator().manual_seed(0)
    assert same(simulator.augment(many, 0.0, generator), many)
    states = simulator.augment(many, 0.5, generator)["observation", "state"]
    changed = (states != many["observation", "state"]).any(-1).float().mean()
    assert 0.45 < changed < 0.55
    assert torch.equal(states[:, :17], many["observation", "state"][:, :17])


def test_other_frames_are_refused():
    few = EVERY.clone()
    few["observation", "state"] = torch.zeros(len(few), 11)
    message = (
        "the state has 11 entries; expected 53, those of CALVIN's state without cameras, as images "
        "hold the colours too: set env.image_size=null"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        permute_block_colours(few, rows(ALL[0]))
    message = "permutation[1] is [0, 0, 2]; expected the numbers 0, 1 and 2"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        permute_block_colours(EVERY[:2], torch.tensor([[0, 1, 2], [0, 0, 2]]))


@pytest.mark.parametrize("permutation", ALL)
def test_the_blocks_entries_move_as_a_whole(permutation):
    """What a policy that attends to blocks reads of one is what the symmetry exchanges."""
    before = EVERY["observation", "state"]
    after = permute_block_colours(EVERY, rows(permutation))["observation", "state"]
    for colour, other in enumerate(permutation.tolist()):
        assert torch.equal(after[:, BLOCK_ENTRIES[other]], before[:, BLOCK_ENTRIES[colour]])
