"""
Remove what is older than was declared: bodies first, then whole months of the log.

Every worker runs this from time to time, and no worker is special: two runs at once share the work. What one run leaves
is found by the next.
"""

from __future__ import annotations

from callgate.domain.catalogue import Retention
from callgate.domain.operator_ports import RetentionPort
from callgate.domain.retention import ArchivedMonth, Purged
from callgate.event_log import event_log
from callgate.services.purge import PURGE_BATCH_MAX, purge_batches

log = event_log(__name__)

PARTITION_MONTHS = 3
"""This month and the next two."""
ARCHIVED_MONTHS_MAX = 12
"""Per run."""


class RetentionService:
    """Purges bodies and archives months, as the catalogue declares."""

    def __init__(self, store: RetentionPort, retention: Retention) -> None:
        self._store = store
        self._retention = retention
        self._reported: ArchivedMonth | None = None
        """The month that could not be archived, as it was last reported."""

    def run(self) -> None:
        """
        Do everything that is due: make partitions, delete unused breakers, purge bodies, archive months.

        Raises:
            LedgerUnavailable
        """
        self._make_partitions()
        self._store.forget_breakers(limit=PURGE_BATCH_MAX)
        purged = purge_batches(self._store, self._retention.body_ages())
        if purged != Purged():
            log.info(
                "bodies.purged",
                calls=purged.calls,
                unprocessable_messages=purged.unprocessable_messages,
            )
        if self._retention.log_months is not None:
            self._archive(self._retention.log_months)

    def _make_partitions(self) -> None:
        partitions = self._store.make_partitions(months=PARTITION_MONTHS)
        if partitions.rows_in_default:
            log.warning(
                "log_rows.not_partitioned",
                rows=partitions.rows_in_default,
                hint="their month had no partition in time; they are still read and archived",
            )
        if partitions.not_made:
            log.warning(
                "log_partitions.not_created",
                months=partitions.not_made,
                hint="ai_call_log_default is too large to be read meanwhile: see docs/adr/0010-retention.md",
            )

    def _archive(self, keep_months: int) -> None:
        for _ in range(ARCHIVED_MONTHS_MAX):
            month = self._store.archive_month(keep_months, self._retention.unknown_days)
            if month is None:
                return
            if month.attempts is None:
                self._report(month)
                return
            log.info("log_partition.archived", partition=month.partition, attempts=month.attempts)

    def _report(self, month: ArchivedMonth) -> None:
        """Log that a month cannot be archived yet. Unknown bills can keep it for weeks: log that once."""
        if month.unknown_bills and month == self._reported:
            return
        self._reported = month
        log.warning(
            "log_partition.deferred", partition=month.partition, unknown_bills=month.unknown_bills
        )
