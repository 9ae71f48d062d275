"""
Keep no longer than was declared: bodies first, then the log, by the month.

Every worker runs this now and then, none is special: two at once share the work or leave it to each other, and what
was not finished is found again the next time.
"""

from __future__ import annotations

import structlog

from callgate.domain.catalogue import Retention
from callgate.domain.operator_ports import RetentionPort
from callgate.domain.retention import ArchivedMonth, BodyAges, Purged

log = structlog.get_logger(__name__)

PURGE_BATCH_MAX = 500
"""Calls per transaction: locks are held for milliseconds."""
PURGE_BATCHES_MAX = 200
"""Batches per run."""
PARTITION_MONTHS = 3
"""This month and the two to come."""
ARCHIVED_MONTHS_MAX = 12
"""Per run."""


class RetentionService:
    """Purges and archives what is too old."""

    def __init__(self, store: RetentionPort, retention: Retention) -> None:
        self._store = store
        self._retention = retention
        self._told_of: ArchivedMonth | None = None
        """The month that waits, as it was last told."""

    def run(self) -> None:
        """
        Do everything that is due: partitions ahead, breakers, bodies, months of the log.

        Raises:
            LedgerUnavailable
        """
        self._make_partitions()
        self._store.forget_breakers(limit=PURGE_BATCH_MAX)
        purged = self.purge(self._retention.body_ages())
        if purged != Purged():
            log.info(
                "bodies.purged",
                calls=purged.calls,
                unprocessable_messages=purged.unprocessable_messages,
            )
        if self._retention.log_months is not None:
            self._archive(self._retention.log_months)

    def purge(self, ages: BodyAges) -> Purged:
        """
        Remove the bodies of all calls that are too old, in batches, up to `PURGE_BATCHES_MAX` of them.

        Raises:
            LedgerUnavailable: What was purged before stays purged.
        """
        total = Purged()
        if ages.is_unlimited:
            return total
        for _ in range(PURGE_BATCHES_MAX):
            batch = self._store.purge(ages, limit=PURGE_BATCH_MAX)
            total += batch
            if max(batch.calls, batch.unprocessable_messages) < PURGE_BATCH_MAX:
                break
        return total

    def _make_partitions(self) -> None:
        partitions = self._store.make_partitions(months=PARTITION_MONTHS)
        if partitions.rows_in_default:
            log.warning(
                "log_rows_without_a_partition",
                rows=partitions.rows_in_default,
                hint="they are served and archived all the same; the month's partition was not there in time",
            )
        if partitions.not_made:
            log.warning(
                "log_partitions_not_made",
                months=partitions.not_made,
                hint="ai_call_log_default is too large to be read meanwhile: see docs/adr/0010-retention.md",
            )

    def _archive(self, keep_months: int) -> None:
        for _ in range(ARCHIVED_MONTHS_MAX):
            month = self._store.archive_month(keep_months, self._retention.unknown_days)
            if month is None:
                return
            if month.attempts is None:
                self._tell_of(month)
                return
            log.info("log_partition.archived", partition=month.partition, attempts=month.attempts)

    def _tell_of(self, month: ArchivedMonth) -> None:
        """Say that a month waits: once, if it is for bills that nobody knows, for it may be for weeks."""
        if month.unknown_bills and month == self._told_of:
            return
        self._told_of = month
        log.warning(
            "log_partition_waits", partition=month.partition, unknown_bills=month.unknown_bills
        )
