"""Work that is done by several threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_threads(tasks: Sequence[Callable[[], T]], stop: Callable[[], None]) -> list[T]:
    """
    Run each task in a thread of its own, and return what they return, in their order.

    The first error, or Ctrl-C, calls `stop`, which must make the others end. It is raised when they have.
    """
    with ThreadPoolExecutor(len(tasks)) as pool:
        running = [pool.submit(task) for task in tasks]
        try:
            return [task.result() for task in running]
        except BaseException:
            stop()
            raise
