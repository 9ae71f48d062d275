"""Time and ids of a memory ledger that does the same every time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID


class ManualClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, at: datetime = datetime(2026, 11, 18, 12, tzinfo=UTC)) -> None:
        self.at = at

    def __call__(self) -> datetime:
        """The time."""
        return self.at

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)


def counted_ids() -> Callable[[datetime], UUID]:
    """Ids 1, 2, 3, ... for ledgers that must do the same every time."""
    numbers = itertools.count(1)
    return lambda at: UUID(int=next(numbers))
