"""Old months of the log: calls of every end in them, and archiving until nothing is left to do."""

from __future__ import annotations

from callgate.domain.calls import AttemptRef
from callgate.domain.reports import Snapshot
from callgate.domain.retention import ArchivedMonth
from callgate.domain.sums import CostLine
from callgate.services.audit import audit
from tests.support.ledger_under_test import a_submission, a_success, an_answer
from tests.support.partitions import PartitionedLedger, month


def clean_snapshot(log: PartitionedLedger) -> Snapshot:
    """A snapshot of the ledger, after an audit that found nothing wrong."""
    report = audit(log.under_test.operations)
    assert report.is_clean, report
    return report.snapshot


def sums(log: PartitionedLedger) -> list[CostLine]:
    """All costs."""
    return log.under_test.operations.costs()


def two_old_months(log: PartitionedLedger) -> dict[str, AttemptRef]:
    """Calls of every end, three and four months old, with retries, duplicates and an unknown attempt."""
    log.make(back=4, months=2)
    ledger = log.under_test
    old: dict[str, AttemptRef] = {}
    old["good"] = log.move(ledger.succeeded("good", 60), back=4)
    ledger.submit(a_submission("good"), a_submission("good"))
    old["dead"] = log.move(ledger.dead("dead"), back=4)
    lost = ledger.lost("crossing")
    second = ledger.claim(ledger.requeued(lost.key))
    ledger.record(an_answer(second))
    ledger.settle(a_success(second, 50))
    log.move(lost, back=4)
    old["crossing"] = log.move_attempt(second, month(3))
    old["other"] = log.move(ledger.succeeded("other", 7, call_type="triage"), back=3)
    return old


def archive_all(log: PartitionedLedger) -> list[ArchivedMonth]:
    """Purge, then archive until there is nothing left to do."""
    log.under_test.purge()
    months = []
    while (archived := log.archive_month(1)) is not None:
        months.append(archived)
        assert archived.attempts is not None
    return months


# Made ahead.
