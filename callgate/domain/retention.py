"""
How long what is kept is kept: the bodies of calls, and the log of attempts.

Bodies (requests, replies, the arguments of links, stray messages) are personal data and go first; the accounting
stays. The log itself goes by the month, and leaves its sums. Ages are durations: only the ledger's clock is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

LATE_ANSWER_MAX = timedelta(days=7)
"""How long after its start an attempt's late answer is still taken; then its row can never change again."""

UNKNOWN_DAYS = 45
"""So long a bill that nobody knows keeps its month of the log: providers bill by the month, and some days later."""


@dataclass(frozen=True, slots=True)
class BodyAges:
    """How old the bodies of ended calls may become, in seconds; None keeps them for ever."""

    default_s: float | None = None
    """Of every organisation without an age of its own, and of stray messages, which belong to none."""
    by_org_s: Mapping[str, float] = field(default_factory=dict)

    def max_s(self, org_id: str) -> float | None:
        """What holds for one organisation."""
        return self.by_org_s.get(org_id, self.default_s)

    def only(self, org_id: str) -> BodyAges:
        """The same for one organisation alone: nobody else's bodies are touched."""
        age_s = self.max_s(org_id)
        return BodyAges() if age_s is None else BodyAges(by_org_s={org_id: age_s})

    @property
    def is_unlimited(self) -> bool:
        """True if nothing ever becomes too old."""
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
    Rows that found no partition of their month, counted up to 1,000: served all the same, but a sign that nobody
    made it in time.
    """


@dataclass(frozen=True, slots=True)
class ArchivedMonth:
    """One partition of the log that was old enough to be dropped."""

    partition: str
    attempts: int | None
    """How many rows were summed and dropped; None if something in it is not at rest: it waits."""
    unknown_bills: int = 0
    """How many bills that nobody knows are too young to be dropped."""
