"""How the memory ledger forgets: `RetentionPort` over its tables."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from callgate.adapters.memory.breakers import forget
from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import CallState
from callgate.domain.reports import UnprocessableMessage
from callgate.domain.retention import UNKNOWN_DAYS, ArchivedMonth, BodyAges, Partitions, Purged


class MemoryRetention:
    """The retention of the memory ledger. It has no partitions: nothing is made ahead, and no month is ever dropped."""

    tables: MemoryTables
    _clock: Callable[[], datetime]
    _lock: threading.Lock

    def purge(self, ages: BodyAges, *, limit: int, dry_run: bool = False) -> Purged:
        """Remove the bodies of up to `limit` calls that ended too long ago; the accounting stays."""
        with self._lock:
            now = self._clock()
            found = [c for c in self.tables.calls.values() if self._is_too_old(c, ages, now)]
            calls = found[:limit]
            unprocessable_messages = (
                []
                if ages.default_s is None
                else self._old_unprocessable_messages(ages.default_s, now)[:limit]
            )
            if not dry_run:
                for call in calls:
                    self._empty(call)
                for message in unprocessable_messages:
                    self.tables.unprocessable_messages.remove(message)
            return Purged(len(calls), len(unprocessable_messages))

    def forget_breakers(self, *, limit: int) -> int:
        """Delete breakers that were not used for a week and that no call waits for."""
        with self._lock:
            return forget(self.tables, self._clock(), limit)

    def calls_with_bodies(self, org_id: str) -> int:
        """Count the calls that are not purged."""
        with self._lock:
            calls = self.tables.calls.values()
            return sum(c.org_id == org_id and c.request is not None for c in calls)

    def old_calls_with_bodies(self, org_id: str, age_s: float) -> int:
        """Count the ended ones that are not purged, and old enough."""
        with self._lock:
            before = self._clock() - timedelta(seconds=age_s)
            calls = [c for c in self.tables.calls.values() if c.org_id == org_id and c.request]
            return sum(not c.state.is_open and self._ended_at(c) <= before for c in calls)

    def old_dead_letters(self, ages: BodyAges, *, limit: int) -> int:
        """Count the dead ones of those that are old enough."""
        with self._lock:
            now = self._clock()
            dead = [c for c in self.tables.calls.values() if c.state is CallState.DEAD]
            return min(sum(self._is_too_old(c, ages, now) for c in dead), limit)

    def make_partitions(self, *, months: int) -> Partitions:
        """Make nothing: a dict needs no partitions."""
        return Partitions(0, 0, 0)

    def archive_month(
        self, keep_months: int, unknown_days: int = UNKNOWN_DAYS
    ) -> ArchivedMonth | None:
        """Drop nothing: this log ends with its process."""
        return None

    def _is_too_old(self, call: CallRow, ages: BodyAges, now: datetime) -> bool:
        age_s = ages.max_s(call.org_id)
        if age_s is None or call.request is None or call.due_at is not None:
            return False
        if call.state.is_open or call.key in self.tables.undelivered:
            return False
        has_late_answer = any(a.late_due_at for a in self.tables.attempts_of[call.key])
        return not has_late_answer and self._ended_at(call) <= now - timedelta(seconds=age_s)

    def _ended_at(self, call: CallRow) -> datetime:
        attempts = self.tables.attempts_of[call.key]
        return max([call.created_at, *(a.posted_at for a in attempts if a.posted_at)])

    def _old_unprocessable_messages(
        self, age_s: float, now: datetime
    ) -> list[tuple[datetime, UnprocessableMessage]]:
        return [
            s for s in self.tables.unprocessable_messages if s[0] <= now - timedelta(seconds=age_s)
        ]

    def _empty(self, call: CallRow) -> None:
        call.request = None
        for attempt in self.tables.attempts_of[call.key]:
            attempt.reply = None
        for submission in self.tables.submissions_of[call.key]:
            submission.link = None
