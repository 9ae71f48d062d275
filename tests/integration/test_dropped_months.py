"""Months of the log that are dropped: no sum changes, and what was purged is nowhere in the database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from callgate.domain.calls import AttemptStatus, Bodies, CallKey, CallState
from callgate.domain.errors import CallFailed, ResultPurged
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.reports import UnprocessableMessage
from callgate.domain.retention import ArchivedMonth
from callgate.services.audit import audit
from callgate.services.results import error_of
from tests.support.ledger_under_test import a_loss, a_submission, a_success, an_answer
from tests.support.old_months import archive_all, clean_snapshot, sums, two_old_months
from tests.support.partitions import (
    PartitionedLedger,
    month,
    partition_of,
)

pytestmark = pytest.mark.long
SECRET = "Jane Doe, 4 May 1971"  # noqa: S105 - what must be gone, no password


# Dropped.


def test_the_audit_does_not_notice_that_months_are_dropped(log: PartitionedLedger) -> None:
    """Budgets, costs and counts are what they were, out of sums instead of rows."""
    two_old_months(log)
    log.under_test.succeeded("young")
    log.under_test.running("open", 5)
    before, costs = clean_snapshot(log), sums(log)

    archived = archive_all(log)

    # Five attempts of four calls: one crossed from one month into the next.
    assert archived == [
        ArchivedMonth(partition_of(month(4)), 3),
        ArchivedMonth(partition_of(month(3)), 2),
    ]
    assert not {partition_of(month(back)) for back in (4, 3)} & set(log.partitions())
    assert partition_of(month(0)) in log.partitions()
    after = clean_snapshot(log)
    assert replace(after, at=before.at) == before
    assert after.attempts_by_status == {"succeeded": 4, "failed": 1, "unknown": 1, "dispatched": 1}
    assert sums(log) == costs
    ((rows,),) = log.sql("SELECT count(*) FROM ai_call_log")
    assert rows == 2


def test_a_call_whose_log_was_dropped_can_still_be_read(log: PartitionedLedger) -> None:
    """A success says that it was purged, a dead call why it died; submitted again, both start again."""
    old = two_old_months(log)
    archive_all(log)
    ledger = log.under_test

    good = ledger.view(old["good"].key, Bodies.BOTH)
    dead = ledger.view(old["dead"].key, Bodies.BOTH)

    assert isinstance(error_of(good), ResultPurged)
    assert isinstance(error_of(dead), CallFailed)
    assert (good.last, good.attempt, good.is_purged) == (None, 1, True)
    answers = ledger.submit(a_submission("good"), a_submission("dead"))
    assert [a.outcome for a in answers] == [SubmitOutcome.CREATED] * 2
    assert [a.key.generation for a in answers] == [2, 2]
    clean_snapshot(log)


def test_an_answer_to_a_dropped_attempt_is_too_late(log: PartitionedLedger) -> None:
    """A zombie that wakes after months harms nobody."""
    log.make(back=4, months=1)
    ledger = log.under_test
    ref = ledger.running()
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))
    ref = log.move(ref, back=4)
    archive_all(log)

    assert [outcome.value for outcome in ledger.record(an_answer(ref))] == ["closed"]
    (settled,) = ledger.settle(a_success(ref, expected_status=AttemptStatus.UNKNOWN))
    assert not settled.is_applied
    clean_snapshot(log)


def test_rows_of_the_default_partition_are_archived_too(log: PartitionedLedger) -> None:
    """They are deleted, and what is younger in it stays."""
    ledger = log.under_test
    log.move(ledger.succeeded("old", 60), back=9)
    # The middle of a month that is not over: no partition of it is there only in this test.
    log.sql(f"DROP TABLE {partition_of(month(0))}")
    try:
        ledger.succeeded("young", 50)
        before, costs = clean_snapshot(log), sums(log)

        assert archive_all(log) == [ArchivedMonth("ai_call_log_default", 1)]

        assert replace(clean_snapshot(log), at=before.at) == before
        assert sums(log) == costs
        assert ledger.retention.make_partitions(months=3).rows_in_default == 1
    finally:
        log.sql("TRUNCATE llm_call, submission, ai_call_log")
        log.make(back=0, months=1)


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM ai_call_log WHERE status = 'failed'",
        "DELETE FROM ai_call_log WHERE status = 'succeeded'",
        "DELETE FROM day_sum WHERE outcome = 'unknown' AND day < date_trunc('month', now())",
        "UPDATE day_sum SET attempts = attempts - 1 WHERE outcome = 'failed' AND day < date_trunc('month', now())",
        "UPDATE budget_sum SET posted_nano_usd = posted_nano_usd - 1 WHERE day < date_trunc('month', now())",
    ],
    ids=["a young row", "the rest of an old call", "a sum", "a count", "an amount"],
)
def test_what_is_lost_is_found_after_months_were_dropped(log: PartitionedLedger, harm: str) -> None:
    """A row in the log, or a sum in the archive."""
    log.make(back=4, months=1)
    ledger = log.under_test
    lost = ledger.lost("crossing")
    second = ledger.claim(ledger.requeued(lost.key))
    ledger.record(an_answer(second))
    ledger.settle(a_success(second, 50))
    log.move(lost, back=4)
    log.move_attempt(second, month(0).replace(day=1, hour=0, second=1))
    log.move(ledger.dead("dead"), back=4)
    log.move(ledger.succeeded("good", 60), back=4)
    ledger.dead("young")
    archive_all(log)
    clean_snapshot(log)

    log.sql(harm)

    assert not audit(ledger.operations, everything=True).is_clean


def test_two_rows_of_one_attempt_are_found(log: PartitionedLedger) -> None:
    """No constraint forbids them across partitions, so the audit counts; here even the number of rows is right."""
    ledger = log.under_test
    first = ledger.waiting()
    second = ledger.claim(ledger.requeued(first.key))
    clean_snapshot(log)

    log.sql("UPDATE ai_call_log SET attempt = 1 WHERE attempt_id = :id", id=second.attempt_id)

    report = audit(ledger.operations)
    assert (report.is_clean, report.proof.calls_with_missing_rows) == (False, 1)
    assert report.drift_nano_usd == 0


def test_a_row_more_than_there_were_attempts_is_found(log: PartitionedLedger) -> None:
    """As a provider request that nobody held money for would look."""
    ref = log.under_test.dead()
    log.sql(
        """INSERT INTO ai_call_log (call_id, generation, attempt, org_id, input_hash, call_type, provider, model,
                                    status, hold_nano_usd, posted_nano_usd, posted_at, budget_ids, queue_ms, worker_id)
           SELECT call_id, generation, 1, org_id, input_hash, call_type, provider, model,
                  'failed', 0, 0, now(), '{}', 0, 'x' FROM ai_call_log WHERE attempt_id = :id""",
        id=ref.attempt_id,
    )

    assert not audit(log.under_test.operations).is_clean


# Erased.


def test_a_purged_text_is_nowhere_in_the_database(log: PartitionedLedger) -> None:
    """In no column of no table or view, as text or as bytes, and in no sample that Postgres keeps of them."""
    ledger = log.under_test
    # Twice: what is there more than once is what samples are made of.
    for content in "xy":
        new = a_submission(content, request=SECRET.encode(), link=f'{{"args":["{SECRET}"]}}')
        ledger.submit(new)
        ref = ledger.claim(new_key := CallKey(new.call_id, 1))
        ledger.record(an_answer(ref, reply=f'{{"texts":["{SECRET}"]}}'.encode()))
        ledger.settle(a_success(ref))
        ledger.deliver(new.submission_id)
        ledger.operations.keep_unprocessable(
            UnprocessableMessage("callgate.call", "not JSON", SECRET.encode())
        )
    log.sql("ANALYZE")
    assert set(places_of(log, SECRET)) == {
        "llm_call", "submission", "ai_call_log", "unprocessable_message",
    }  # fmt: skip

    ledger.purge()

    assert places_of(log, SECRET) == []
    assert ledger.view(new_key).is_purged


def places_of(log: PartitionedLedger, secret: str) -> list[str]:
    """Every table or view in which some row shows the text; samples of rows are in `pg_statistic`."""
    names = log.sql(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
        " AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition"
    )
    pattern = f"({secret}|{secret.encode().hex()})"
    return [
        name
        for name in [*(name for (name,) in names), "pg_statistic"]
        if log.sql(f"SELECT 1 FROM {name} x WHERE x::text ~ :pattern LIMIT 1", pattern=pattern)  # noqa: S608
    ]
