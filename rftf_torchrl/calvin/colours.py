"""The symmetry of the three blocks: their colours permuted in state, instruction and task alike."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.calvin.observation import PRIVILEGED_DIM
from rftf_torchrl.calvin.tasks import BLOCKS, TASKS
from rftf_torchrl.transforms.instruction_tokens import HashTokenizer

_FIRST = 17
_PERMUTATIONS = torch.tensor(list(permutations(range(len(BLOCKS)))))


@cache
def _words() -> Tensor:
    """The tokens [3] of the colours."""
    return HashTokenizer()(BLOCKS)[0][:, 0]


@cache
def _tasks() -> tuple[Tensor, Tensor]:
    """The colour [34] of each task's block, -1 for none, and the task [34, 3] of each colour."""
    colour = torch.full((len(TASKS),), -1)
    same = torch.arange(len(TASKS))[:, None].repeat(1, len(BLOCKS))
    for name, task in TASKS.items():
        for number, block in enumerate(BLOCKS):
            if f"_{block}_" in name:
                colour[task.id] = number
                others = (name.replace(block, other) for other in BLOCKS)
                same[task.id] = torch.tensor([TASKS[other].id for other in others])
    return colour, same


def permute_block_colours(frames: TensorDictBase, permutation: Tensor) -> TensorDictBase:
    """Give the blocks each other's colours: the same scene, the same actions, other words.

    What the state says of the block of colour c moves to where it says it of colour p[c], the
    instruction's word for c becomes that for p[c], and the task that of the other colour. The
    simulator's blocks also differ in length, so it holds nearly, not exactly.

    Args:
        frames: [B, ...] with ``("observation", "state")`` float [B, ..., 53] of
            :func:`~rftf_torchrl.state_vector`, ``("instruction", "tokens")`` int64 [B, ..., L] of
            the default :class:`~rftf_torchrl.HashTokenizer`, and ``"task_id"`` int64 [B, ..., 1].
        permutation: int64 [B, 3], p of the colours red, blue and pink for each row.

    Returns:
        A copy with these three entries changed; the others are shared.

    Raises:
        ValueError: for a state of another size, or a row that is no permutation.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from rftf_torchrl import HashTokenizer
        >>> tokens, _ = HashTokenizer()("push the red block")
        >>> frames = TensorDict(
        ...     {
        ...         "observation": {"state": torch.arange(53.0)[None]},
        ...         "instruction": {"tokens": tokens},
        ...         "task_id": torch.tensor([[6]]),
        ...     },
        ...     [1],
        ... )
        >>> other = permute_block_colours(frames, torch.tensor([[1, 0, 2]]))
        >>> other["observation", "state"][0, 17:26].int().tolist()
        [20, 21, 22, 17, 18, 19, 23, 24, 25]
        >>> torch.equal(other["instruction", "tokens"], HashTokenizer()("push the blue block")[0])
        True
    """
    state, tokens, task = frames[keys.STATE], frames[keys.TOKENS], frames[keys.TASK_ID]
    if state.shape[-1] != PRIVILEGED_DIM:
        raise ValueError(
            f"the state has {state.shape[-1]} entries; expected {PRIVILEGED_DIM}, those of "
            "CALVIN's state without cameras, as images hold the colours too: set "
            "env.image_size=null"
        )
    wrong = (permutation.sort(-1).values != torch.arange(len(BLOCKS))).any(-1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"permutation[{row}] is {permutation[row].tolist()}; expected the numbers 0, 1 and 2"
        )
    permutation = permutation.to(state.device)
    inner = [1] * (frames.batch_dims - 1)
    rows = permutation.view(len(permutation), *inner, len(BLOCKS))
    blocks = state[..., _FIRST:].unflatten(-1, (4, len(BLOCKS), 3))
    source = rows.argsort(-1)[..., None, :, None].expand(blocks.shape)
    moved = blocks.gather(-2, source).flatten(-3)
    words, spoken = _words().to(state.device), tokens
    for colour, word in enumerate(words):
        spoken = torch.where(tokens == word, words[rows[..., colour, None]], spoken)
    colours, same = (table.to(state.device) for table in _tasks())
    named = colours[task]
    renamed = same[task, rows.expand(*task.shape[:-1], len(BLOCKS)).gather(-1, named.clamp(min=0))]
    return (
        frames.copy()
        .set(keys.STATE, torch.cat([state[..., :_FIRST], moved], -1))
        .set(keys.TOKENS, spoken)
        .set(keys.TASK_ID, torch.where(named < 0, task, renamed))
    )


def draw_permutations(count: int, share: float, generator: torch.Generator) -> Tensor:
    """A permutation [count, 3] for each row: in a share of them another one than that of nothing.

    Example:
        >>> draw_permutations(2, 0.0, torch.Generator().manual_seed(0)).tolist()
        [[0, 1, 2], [0, 1, 2]]
    """
    changed = torch.rand(count, generator=generator) < share
    number = torch.randint(1, len(_PERMUTATIONS), (count,), generator=generator)
    return _PERMUTATIONS[number * changed]
