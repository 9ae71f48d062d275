"""What a process must not share with the one it was forked from: connections, pools, locks, threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """
    A value that is made once in each process, at its first use there.

    A forked child never touches what it inherited: a connection's next answer may be the parent's, and a lock that
    another thread of the parent held at the fork is never released. What was inherited is kept as it is, because
    closing it would speak on the parent's connections.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        """Make the value of this process now."""
        self._make = make
        self._inherited: list[T] = []
        self._owned = (os.getpid(), make())

    def __call__(self) -> T:
        """The value of this process."""
        pid, value = self._owned
        # No lock: it could be one that is never released. Two threads may both make one; either is as good.
        if pid != os.getpid():
            self._inherited.append(value)
            self._owned = (os.getpid(), value := self._make())
        return value
