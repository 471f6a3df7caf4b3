"""A state that holds objects of one kind: one encoder for all, and the words choose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_VOTE = 10.0
"""A vote counts so much that the words choose long before the rest has learned what to do."""


class ObjectEncoder(nn.Module):
    r"""Encodes each object of a state by the same weights; the words of the instruction choose one.

    .. math::
        h_k = \mathrm{ReLU}(W [o_k, r]), \qquad
        f = [\sum_k \mathrm{softmax}_k(\sum_w v_{wk}) h_k, \frac1K \sum_k h_k]

    Here :math:`o_k` are the entries of object k, :math:`r` those of no object, and :math:`v_{wk}`
    is the vote of the word w for object k, which is learned and starts at 0. Nothing but the votes
    tells the objects apart, so what is learned with one holds for all.

    Args:
        objects: the entries of each object, K lists of equal length, in the same order of meaning.
        state_dim: features of the state, S.
        vocab_size: number of token ids.
        features: of an object, F.

    Raises:
        ValueError: for lists of different lengths, or an entry that is outside of the state or
            stands twice.

    Example:
        >>> encoder = ObjectEncoder([[1, 2], [3, 4]], state_dim=5, vocab_size=8, features=16)
        >>> tokens = torch.tensor([[3, 7, 0], [3, 0, 0]])
        >>> encoder(torch.zeros(2, 5), tokens, tokens > 0).shape
        torch.Size([2, 32])
    """

    entries: Tensor
    rest: Tensor

    def __init__(
        self, objects: Sequence[Sequence[int]], state_dim: int, vocab_size: int, features: int
    ) -> None:
        super().__init__()
        check_objects(objects, state_dim)
        named = {entry for entries in objects for entry in entries}
        rest = [entry for entry in range(state_dim) if entry not in named]
        self.register_buffer("entries", torch.tensor(objects), persistent=False)
        self.register_buffer("rest", torch.tensor(rest, dtype=torch.long), persistent=False)
        self.encode = nn.Linear(len(objects[0]) + len(rest), features)
        self.votes = nn.Embedding(vocab_size, len(objects))
        nn.init.zeros_(self.votes.weight)

    def shared(self, statistics: Tensor) -> Tensor:
        """Statistics [S] of the state, with the objects' mean for each entry of an object."""
        shared = statistics.clone()
        shared[self.entries] = statistics[self.entries].mean(0)
        return shared

    def forward(self, state: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Encodes a state.

        Args:
            state: float [*B, S], standardised by shared statistics.
            tokens: int64 [*B, L].
            mask: bool [*B, L], True at real tokens.

        Returns:
            float [*B, 2 F].
        """
        objects = state[..., self.entries]
        rest = state[..., self.rest][..., None, :]
        rest = rest.expand(*objects.shape[:-1], rest.shape[-1])
        encoded = torch.relu(self.encode(torch.cat([objects, rest], -1)))
        scores = _VOTE * (self.votes(tokens) * mask[..., None]).sum(-2)
        chosen = (scores.softmax(-1)[..., None] * encoded).sum(-2)
        return torch.cat([chosen, encoded.mean(-2)], -1)


def check_objects(objects: Sequence[Sequence[int]], state_dim: int) -> None:
    """Refuses lists of entries that are not objects of a state, see :class:`ObjectEncoder`."""
    lengths = [len(entries) for entries in objects]
    if not lengths or min(lengths) < 1 or len(set(lengths)) > 1:
        raise ValueError(f"objects need equally many entries each, one or more, got {lengths}")
    named = [entry for entries in objects for entry in entries]
    wrong = [entry for entry in named if not 0 <= entry < state_dim or named.count(entry) > 1]
    if wrong:
        raise ValueError(
            f"objects: entry {wrong[0]} is outside of a state of {state_dim}, or stands twice"
        )
