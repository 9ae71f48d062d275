"""
How long bodies of calls and the log of attempts are kept.

Bodies (requests, replies, the arguments of links, unprocessable messages) are personal data. They are removed first,
and the accounting stays. The log is removed by the month, and its sums stay. Ages are durations by the ledger's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

LATE_ANSWER_MAX = timedelta(days=7)
"""How long after its start an attempt's late answer is accepted. After that its row never changes."""

UNKNOWN_DAYS = 45
"""For how many days an unknown bill keeps its month of the log: providers send their bills monthly, some days late."""


@dataclass(frozen=True, slots=True)
class BodyAges:
    """How old the bodies of ended calls may become, in seconds; None: without limit."""

    default_s: float | None = None
    """For organisations without an age of their own, and for unprocessable messages."""
    by_org_s: Mapping[str, float] = field(default_factory=dict)

    def max_s(self, org_id: str) -> float | None:
        """The age for one organisation."""
        return self.by_org_s.get(org_id, self.default_s)

    def only(self, org_id: str) -> BodyAges:
        """The same ages, but for one organisation only."""
        age_s = self.max_s(org_id)
        return BodyAges() if age_s is None else BodyAges(by_org_s={org_id: age_s})

    @property
    def is_unlimited(self) -> bool:
        """True if no body is ever too old."""
        return self.default_s is None and not self.by_org_s


@dataclass(frozen=True, slots=True)
class Purged:
    """What one purge removed, or would remove."""

    calls: int = 0
    unprocessable_messages: int = 0

    def __add__(self, other: Purged) -> Purged:
        return Purged(
            self.calls + other.calls, self.unprocessable_messages + other.unprocessable_messages
        )


@dataclass(frozen=True, slots=True)
class Partitions:
    """The partitions of the log after some were made ahead."""

    made: int
    not_made: int
    """Months that are missing still, because adding them would stop the ledger for long (ADR 10)."""
    rows_in_default: int
    """
    Rows without a partition of their month, counted up to 1,000.

    They are read like all others, but show that the partition was not made in time.
    """


@dataclass(frozen=True, slots=True)
class ArchivedMonth:
    """One partition of the log that was old enough to be dropped."""

    partition: str
    attempts: int | None
    """How many rows were summed and dropped. None if a row can still change: the partition is kept for now."""
    unknown_bills: int = 0
    """How many unknown bills are too young to be dropped."""
