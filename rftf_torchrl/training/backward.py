"""Backward passes of terms of a loss that share nothing, at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch
from torch import Tensor


def backward_apart(terms: Sequence[Tensor]) -> None:
    """Adds the gradients of a sum of terms, on a CPU those without a common part in threads.

    An actor and a critic with a network each are such terms. No parameter gets its gradient from
    two threads, so that the gradients are those of one backward pass, to the bit.

    Args:
        terms: numbers, one of which has a gradient.
    """
    apart = _apart(terms) if terms[0].device.type == "cpu" else [list(terms)]
    first, *others = [cast(Tensor, sum(group)) for group in apart]
    if not others:
        first.backward()
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(
        len(others), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        running = [pool.submit(other.backward) for other in others]
        first.backward()
        for each in running:
            each.result()


def _apart(terms: Sequence[Tensor]) -> list[list[Tensor]]:
    """The terms with a gradient in groups, of which no two have a part of a graph in common."""
    groups: list[tuple[list[Tensor], set[Any]]] = []
    for term in terms:
        if term.requires_grad:
            found = [term], _parts(term)
            for group in [group for group in groups if group[1] & found[1]]:
                groups.remove(group)
                found = group[0] + found[0], group[1] | found[1]
            groups.append(found)
    return [group for group, _ in groups] or [list(terms)]


def _parts(term: Tensor) -> set[Any]:
    """What a backward pass walks through; a leaf itself, where a term is one."""
    found: set[Any] = set()
    left: list[Any] = [term.grad_fn or term]
    while left:
        part = left.pop()
        if part is not None and part not in found:
            found.add(part)
            found.add(getattr(part, "variable", part))
            left += [following for following, _ in getattr(part, "next_functions", ())]
    return found
