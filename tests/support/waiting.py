"""Wait for a condition, and fail if it does not hold in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

POLL_S = 0.02
TIMEOUT_S = 20.0


def holds_within(
    timeout_s: float, condition: Callable[[], object], *, poll_s: float = POLL_S
) -> bool:
    """Wait until a condition holds; False if it does not hold in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
    return True


def until(
    condition: Callable[[], object],
    timeout_s: float = TIMEOUT_S,
    message: Callable[[], str] = lambda: "the condition did not hold in time",
) -> None:
    """Wait until a condition holds."""
    assert holds_within(timeout_s, condition), message()


def until_equal(expected: object, read: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Wait until `read` returns the expected value."""
    until(lambda: read() == expected, timeout_s, lambda: f"expected {expected!r}, got {read()!r}")


async def until_async(condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Wait until a condition holds, while the event loop runs."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        await asyncio.sleep(POLL_S)
