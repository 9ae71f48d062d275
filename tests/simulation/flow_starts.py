"""How many attempts of a key may be under way of which no limit is known, counted a second time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.histories import History

FIRST_UNDER_WAY = 16
"""With how many a key begins, and how many more it gets at a time."""
MINUTE = timedelta(seconds=60)


@dataclass(slots=True)
class SlowStart:
    """What one key may have under way, at most: refused claims may have made it fewer since."""

    most: int = FIRST_UNDER_WAY
    since: datetime | None = None
    """When that last changed."""

    def admitted(self, number: int, history: History, now: datetime) -> int:
        """Return how many may be under way, with an attempt that was let through as one of a number."""
        age = now - (self.since or now)
        self.since = self.since or now
        if not history.is_proven(now) and age > MINUTE:
            self.most, self.since = FIRST_UNDER_WAY, now
        elif number > self.most and age >= MINUTE and self._has_answered(history):
            self.most, self.since = self.most + FIRST_UNDER_WAY, now
        return self.most

    def blocked(self, now: datetime) -> None:
        """The provider has blocked the key: it begins again."""
        self.most, self.since = FIRST_UNDER_WAY, now

    def _has_answered(self, history: History) -> bool:
        assert self.since is not None
        return history.good_at is not None and history.good_at > self.since
