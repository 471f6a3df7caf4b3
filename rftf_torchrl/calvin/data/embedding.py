"""Sentence embeddings that need no model and no download, instead of CALVIN's MiniLM ones."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from rftf_torchrl.nets.sentences import words_of

EMBEDDING_DIM = 384


def hashed_embedding(sentence: str) -> NDArray[np.float32]:
    """Embed an instruction as the sum of random directions, one for each word.

    A word's direction is standard normal, seeded by the CRC-32 of the word in lower case without
    punctuation, and the sum is scaled to length 1. Instructions that share words are close; the
    order of the words is lost, and so is their meaning: these are not the embeddings of
    ``paraphrase-MiniLM-L3-v2`` that come with CALVIN's data, whose shape they have.

    Args:
        sentence: the instruction.

    Returns:
        float32 [384].

    Example:
        >>> one, same, other = map(hashed_embedding, ["Open the door.", "open the door", "push"])
        >>> bool((one == same).all()), bool(abs(one @ other) < 0.2)
        (True, True)
    """
    total = np.zeros(EMBEDDING_DIM)
    for word in words_of(sentence):
        total += np.random.RandomState(zlib.crc32(word.encode())).standard_normal(EMBEDDING_DIM)
    return (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)
