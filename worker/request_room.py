"""
Room in a worker's memory for large requests.

A thousand calls run at once, and a request may have megabytes: together they would fill the memory, and the worker
would be killed with everything in it. One organisation gets half of the room at most, so that others find some.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class RequestRoom:
    """Used in one event loop only."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, org_id: str, size: int) -> Iterator[bool]:
        """
        Take room for a request of `size` bytes for the length of the block; False if there is none.

        An organisation that has nothing here yet may take half of the room by one request of any size.
        """
        own, others = self._taken[org_id], self._taken.total() - self._taken[org_id]
        half = self._bytes_max // 2
        # Counted as half at most: the limit of a request is far below, but nothing here depends on that.
        wanted = min(size, half)
        if own + wanted > half or own + others + wanted > self._bytes_max:
            yield False
            return
        self._taken[org_id] += wanted
        try:
            yield True
        finally:
            self._taken[org_id] -= wanted
            self._taken += Counter()
