"""In which order workers do jobs that need environments."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class JobQueue(Generic[Key]):
    """Which job a worker does next: one in an environment that it has, where there is one.

    A worker has at most one environment more than its share.

    Args:
        names: of the environment of each job, by the job's key.
        held: by worker, the names of its environments, those used last at the end.
    """

    def __init__(self, names: Mapping[Key, Hashable], held: list[list[Hashable]]) -> None:
        self._waiting: dict[Hashable, deque[Key]] = {}
        for key, name in names.items():
            self._waiting.setdefault(name, deque()).append(key)
        self._names, self._held = names, held
        self._room = -(-len(self._waiting) // len(held)) + 1

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def take(self, place: int) -> tuple[Key, Hashable | None] | None:
        """The key of a job and the environment to close for it, or nothing for now."""
        held = self._held[place]
        holders = Counter(name for names in self._held for name in names)
        left = [name for name, keys in self._waiting.items() if keys]
        name = next((name for name in left if name in held), min(left, key=holders.__getitem__))
        dropped = None
        if name in held:
            held.remove(name)
        elif len(held) >= self._room:
            if holders[name]:
                return None
            dropped = held.pop(0)
        held.append(name)
        return self._waiting[name].popleft(), dropped

    def put_back(self, key: Key) -> None:
        """A job is the next of its environment again."""
        self._waiting[self._names[key]].appendleft(key)
