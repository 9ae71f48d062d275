"""
A limit on the memory that large requests take in a worker.

A thousand calls run at once, and each request may have megabytes. Without a limit they would fill the memory, and the
kernel would kill the worker. One organisation gets at most half of the room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class RequestRoom:
    """The room of one process. Not thread-safe: use it in the event loop only."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, org_id: str, size: int) -> Iterator[bool]:
        """
        Reserve room for a request of `size` bytes during the block; yields False if there is none.

        A request larger than half of the room counts as half, so that it can run when its organisation has no other.
        """
        own, others = self._taken[org_id], self._taken.total() - self._taken[org_id]
        half = self._max_bytes // 2
        counted = min(size, half)
        if own + counted > half or own + others + counted > self._max_bytes:
            yield False
            return
        self._taken[org_id] += counted
        try:
            yield True
        finally:
            self._taken[org_id] -= counted
            self._taken += Counter()
