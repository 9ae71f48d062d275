"""Values that a forked process must not share with its parent: connections, pools, locks, threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """
    A value that each process makes for itself, at its first use there.

    A forked child never uses the inherited value: the next answer on a connection may be the parent's, and a lock that
    another thread of the parent held at the fork is never released. The inherited value is kept, because closing it
    would write to the parent's connections.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        """Make the value of this process at once."""
        self._make = make
        self._inherited: list[T] = []
        self._owned = (os.getpid(), make())

    def __call__(self) -> T:
        """The value of this process."""
        pid, value = self._owned
        # Without a lock: a lock may have been held at the fork. If two threads make a value each, either will do.
        if pid != os.getpid():
            self._inherited.append(value)
            self._owned = (os.getpid(), value := self._make())
        return value
