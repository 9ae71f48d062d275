"""The log by the month: made ahead, looked up without visiting the past, dropped without the books noticing."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from callgate.adapters.memory.ledger import uuid7
from callgate.domain.calls import AttemptRef, AttemptStatus, Bodies, CallKey, CallState
from callgate.domain.errors import CallFailed, ResultPurged, RowRefused
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.reports import By, CostLine, Snapshot, UnprocessableMessage
from callgate.domain.retention import ArchivedMonth, Partitions
from callgate.domain.unknown import HandOutcome, SettleByHand
from callgate.services.audit import audit
from callgate.services.results import error_of
from devkit.servers.embedded import DevServers
from tests.support.ledger_under_test import a_loss, a_submission, a_success, an_answer
from tests.support.partitions import (
    PartitionedLedger,
    month,
    partition_of,
    partitioned_ledger,
)

TOUCHED = """
SELECT relname FROM pg_stat_xact_user_tables
 WHERE relname LIKE 'ai\\_call\\_log\\_____\\___' AND idx_scan + seq_scan > 0
"""
READ_OF_DEFAULT = """
SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'ai_call_log_default'
"""
MANY_ROWS = """
INSERT INTO ai_call_log (attempt_id, call_id, generation, attempt, org_id, input_hash, call_type, provider, model,
                         status, hold_nano_usd, posted_nano_usd, posted_at, budget_ids, queue_ms, worker_id, error_json)
SELECT (left(CAST(:first_id AS text), 24) || lpad(to_hex(n), 12, '0'))::uuid, gen_random_uuid(), 1, 1, 'o',
       sha256('x'), 't', 'p', 'm', 'failed', 0, 0, now(), '{}', 0, 'w', repeat('x', 1800)
  FROM generate_series(1, 10000) n
"""
RETENTION_ADR = Path(__file__).parents[2] / "docs" / "adr" / "0010-retention.md"
SECRET = "Jane Doe, 4 May 1971"  # noqa: S105 - what must be gone, no password


@pytest.fixture
def log(postgres_engine: Engine, services: DevServers) -> Iterator[PartitionedLedger]:
    """An empty ledger with the partitions that a migration makes."""
    with partitioned_ledger(postgres_engine, services.database_url) as ledger:
        yield ledger


def books(log: PartitionedLedger) -> Snapshot:
    """The books, which must be right."""
    report = audit(log.under_test.operations.snapshot())
    assert report.is_clean, report
    return report.snapshot


def sums(log: PartitionedLedger) -> list[CostLine]:
    """Costs without percentiles: those are of what is still in the log."""
    lines = log.under_test.operations.costs()
    return [replace(line, latency_ms_p50=None, latency_ms_p95=None) for line in lines]


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


def archive_all(log: PartitionedLedger) -> list[ArchivedMonth | None]:
    """Purge, then archive until there is nothing left to do."""
    log.under_test.purge()
    months = []
    while (archived := log.under_test.retention.archive_month(1)) is not None:
        months.append(archived)
        assert archived.attempts is not None
    return months


# Made ahead.


def test_partitions_are_made_ahead(log: PartitionedLedger) -> None:
    """This month and those to come; what is there already is left alone."""
    assert {partition_of(month(-ahead)) for ahead in (-1, 0, 1, 2)} <= set(log.partitions())
    # From the last month that is there: one of the two is new.
    assert log.make(back=-2, months=2) == 1
    assert log.make(back=-2, months=2) == 0
    assert partition_of(month(-3)) in log.partitions()


def test_every_attempt_lies_in_the_month_of_its_id(log: PartitionedLedger) -> None:
    """To the millisecond, in UTC."""
    log.make(back=3, months=2)
    edge = month(2).replace(day=1, hour=0)
    ref = log.under_test.succeeded()

    places = []
    for at in (edge - timedelta(milliseconds=1), edge):
        ref = log.move_attempt(ref, at)
        places.append(log.partition_with(ref.attempt_id))

    assert places == [partition_of(month(3)), partition_of(month(2))]


def test_an_attempt_without_a_partition_is_kept_and_told_of(log: PartitionedLedger) -> None:
    """No insert ever fails for want of a month; the row is served and counted like any other."""
    ref = log.move(log.under_test.succeeded(), back=9)

    assert log.partition_with(ref.attempt_id) == "ai_call_log_default"
    assert log.under_test.retention.make_partitions(months=3).rows_in_default == 1
    assert log.under_test.view(ref.key).posted_nano_usd == 60
    books(log)
    # Its month is left to the default partition; the others are made.
    assert log.make(back=10, months=3) == 2
    assert partition_of(month(9)) not in log.partitions()


def test_a_number_of_months_that_makes_no_sense_is_refused(log: PartitionedLedger) -> None:
    """Nothing is made or dropped by a mistake."""
    for months in (0, 8, 2_000_000_000):
        with pytest.raises(RowRefused):
            log.under_test.retention.make_partitions(months=months)
    with pytest.raises(DBAPIError, match="from 3 years ago"):
        log.make(back=40, months=1)
    with pytest.raises(RowRefused):
        log.under_test.retention.archive_month(0)


def test_a_large_default_partition_is_not_read_while_the_ledger_waits(
    log: PartitionedLedger,
) -> None:
    """No month is added, until the owner has done what the ADR says: then without reading it."""
    log.sql(MANY_ROWS, first_id=uuid7(month(9)))
    assert log.under_test.retention.make_partitions(months=4) == Partitions(0, 1, 1_000)

    (procedure,) = re.findall("```sql\n(.*?);\n```", RETENTION_ADR.read_text(), re.DOTALL)
    *prove, make, drop = procedure.replace("now(), 3", "now(), 4").split(";\n")
    for statement in prove:
        log.sql(statement)
    ((read,),) = log.sql(f"{make}; {READ_OF_DEFAULT}")
    log.sql(drop)

    assert partition_of(month(-3)) in log.partitions()
    assert read <= 1_000
    assert log.sql("SELECT count(*) FROM pg_constraint WHERE conname ~ 'is_past'") == [(0,)]


# Looked up.


def test_no_look_up_visits_the_past(log: PartitionedLedger, postgres_engine: Engine) -> None:
    """Over the whole life of a call, two years of partitions cost nothing."""
    log.make(back=24, months=23)
    ledger = log.under_test
    link = a_submission(link='{"task":"t"}')
    (submitted,) = ledger.submit(link)
    key = submitted.key
    recent = {partition_of(datetime.now(UTC) - timedelta(days=1))}
    recent |= {partition_of(month(-ahead)) for ahead in range(3)}

    def touched_by(statement: str) -> set[str]:
        values = {
            "call_id": key.call_id, "attempt_id": attempt_id(log, key), "link": link.submission_id,
        }  # fmt: skip
        with postgres_engine.begin() as connection:
            connection.execute(text(statement), values).all()
            return {name for (name,) in connection.execute(text(TOUCHED))}

    life = (
        (
            "SELECT callgate_reserve_v1(ARRAY[:call_id]::uuid[], '{1}', '{5}', '{30}', '{w}', '{p}', '{NULL}',"
            " '{f}', '{NULL}', '{NULL}', '{NULL}', '{quarantine}', '{\"\"}', '{60}')"
        ),
        "SELECT callgate_read_v1(ARRAY[:call_id]::uuid[], '{1}', '{NULL}', 1000, true, 1)",
        "SELECT callgate_record_v1(ARRAY[:attempt_id]::uuid[], '{x}', '{NULL}', '{1}', '{NULL}')",
        (
            "SELECT callgate_settle_v1(ARRAY[:call_id]::uuid[], '{1}', ARRAY[:attempt_id]::uuid[], '{answered}',"
            " '{succeeded}', '{5}', '{succeeded}', '{NULL}', '{1}', '{0}', '{0}', '{1}', '{0}', '{NULL}', '{NULL}',"
            " '{NULL}', '{NULL}', '{alive}', '{NULL}', '{NULL}')"
        ),
        "SELECT callgate_read_v1(ARRAY[:call_id]::uuid[], '{1}', ARRAY[:attempt_id]::uuid[], 1000, true, 1)",
        "SELECT callgate_deliver_v1(ARRAY[:link]::uuid[], '{NULL}', '{NULL}')",
        "SELECT callgate_purge_v1('{}', '{}', 0, 10, false)",
    )
    touched = [touched_by(statement) for statement in life]

    assert (ledger.state(key), ledger.view(key).is_purged) == (CallState.SUCCEEDED, True)
    # Delivery looks at no attempt.
    assert touched[-2] == set()
    assert all(partition_of(datetime.now(UTC)) in names for names in (*touched[1:-2], touched[-1]))
    assert [names - recent for names in touched] == [set()] * len(life)


def attempt_id(log: PartitionedLedger, key: CallKey) -> object:
    """The attempt a call has now, if any."""
    ((found,),) = log.sql("SELECT attempt_id FROM llm_call WHERE call_id = :id", id=key.call_id)
    return found


# Dropped.


def test_the_books_do_not_notice_that_months_are_dropped(log: PartitionedLedger) -> None:
    """Budgets, costs and counts are what they were, out of sums instead of rows."""
    two_old_months(log)
    log.under_test.succeeded("young")
    log.under_test.running("open", 5)
    before, costs = books(log), sums(log)

    archived = archive_all(log)

    # Five attempts of four calls: one crossed from one month into the next.
    assert archived == [
        ArchivedMonth(partition_of(month(4)), 3),
        ArchivedMonth(partition_of(month(3)), 2),
    ]
    assert not {partition_of(month(back)) for back in (4, 3)} & set(log.partitions())
    assert partition_of(month(0)) in log.partitions()
    after = books(log)
    assert replace(after, at=before.at) == before
    assert after.attempts_by_status == {"succeeded": 4, "failed": 1, "unknown": 1, "dispatched": 1}
    assert sums(log) == costs
    ((rows,),) = log.sql("SELECT count(*) FROM ai_call_log")
    assert rows == 2


def test_a_call_whose_log_was_dropped_can_still_be_read(log: PartitionedLedger) -> None:
    """A success says that it was purged, a dead call why it died; submitted again, both start anew."""
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
    books(log)


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
    books(log)


def test_rows_of_the_default_partition_are_archived_too(log: PartitionedLedger) -> None:
    """They are deleted, and what is younger in it stays."""
    ledger = log.under_test
    log.move(ledger.succeeded("old", 60), back=9)
    # The middle of a month that is not over: no partition of it is there only in this test.
    log.sql(f"DROP TABLE {partition_of(month(0))}")
    try:
        ledger.succeeded("young", 50)
        before, costs = books(log), sums(log)

        assert archive_all(log) == [ArchivedMonth("ai_call_log_default", 1)]

        assert replace(books(log), at=before.at) == before
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
        "DELETE FROM ai_call_log_archive WHERE status = 'unknown'",
        "UPDATE ai_call_log_archive SET attempts = attempts - 1 WHERE status = 'failed'",
        "UPDATE ai_call_log_archive SET posted_nano_usd = posted_nano_usd - 1 WHERE status = 'succeeded'",
    ],
    ids=["a young row", "the rest of an old call", "an archived sum", "a count", "an amount"],
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
    books(log)

    log.sql(harm)

    assert not audit(ledger.operations.snapshot()).is_clean


def test_two_rows_of_one_attempt_are_found(log: PartitionedLedger) -> None:
    """No constraint forbids them across partitions, so the audit counts; here even the number of rows is right."""
    ledger = log.under_test
    first = ledger.waiting()
    second = ledger.claim(ledger.requeued(first.key))
    books(log)

    log.sql("UPDATE ai_call_log SET attempt = 1 WHERE attempt_id = :id", id=second.attempt_id)

    report = audit(ledger.operations.snapshot())
    assert (report.is_clean, report.snapshot.calls_with_missing_rows) == (False, 1)
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

    assert not audit(log.under_test.operations.snapshot()).is_clean


# What is not dropped.


def kept_open(log: PartitionedLedger) -> None:
    log.move(log.under_test.waiting("open", due_in_s=600), back=4)


def unposted(log: PartitionedLedger) -> None:
    log.move(log.under_test.answered("unposted"), back=4)


def untold(log: PartitionedLedger) -> None:
    log.move(log.under_test.succeeded("untold", link='{"task":"t"}'), back=4)


def without_its_call(log: PartitionedLedger) -> None:
    ref = log.move(log.under_test.succeeded("orphan"), back=4)
    log.under_test.purge()
    log.sql("DELETE FROM llm_call WHERE call_id = :id", id=ref.key.call_id)


def with_a_late_answer(log: PartitionedLedger) -> None:
    ledger = log.under_test
    ref = ledger.running("late")
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))
    ledger.record(an_answer(ref))
    log.move(ref, back=4)


@pytest.mark.parametrize(
    "bring", [kept_open, unposted, untold, without_its_call, with_a_late_answer]
)
def test_a_month_waits_for_what_is_not_at_rest(
    log: PartitionedLedger, bring: Callable[[PartitionedLedger], None]
) -> None:
    """One such row, and the whole month stays."""
    log.make(back=4, months=1)
    log.move(log.under_test.succeeded("fine"), back=4)
    bring(log)
    log.under_test.purge()

    archived = log.under_test.retention.archive_month(1)

    assert archived == ArchivedMonth(partition_of(month(4)), None)
    assert partition_of(month(4)) in log.partitions()
    assert log.sql("SELECT count(*) FROM ai_call_log_archive") == [(0,)]


def test_a_month_waits_until_its_bodies_are_purged(log: PartitionedLedger) -> None:
    """Dropping the log never is the way a text disappears."""
    log.make(back=4, months=1)
    log.move(log.under_test.succeeded(), back=4)

    assert log.under_test.retention.archive_month(1) == ArchivedMonth(partition_of(month(4)), None)
    log.under_test.purge()
    assert log.under_test.retention.archive_month(1) == ArchivedMonth(partition_of(month(4)), 1)


def given_up(log: PartitionedLedger, content: str = "lost") -> AttemptRef:
    """A call that is dead because nobody knows what became of its request."""
    ref = log.under_test.running(content)
    log.under_test.settle(a_loss(ref, next_state=CallState.DEAD))
    return ref


def by_hand(log: PartitionedLedger, ref: AttemptRef, billed: int = 0) -> HandOutcome:
    """Settle an attempt that posted 100 by hand."""
    settle = SettleByHand(ref.attempt_id, 100, billed)
    (answer,) = log.under_test.operations.settle_by_hand([settle], by=By("ann", "invoice 7"))
    return answer.outcome


def test_a_month_waits_while_a_bill_may_still_be_learned(log: PartitionedLedger) -> None:
    """The row is what an operator settles; once it is settled, or too old to hope, its month goes."""
    log.make(back=4, months=1)
    log.move(log.under_test.succeeded("fine"), back=4)
    first, second = (log.move(given_up(log, page), back=4) for page in ("one", "two"))
    log.under_test.purge()
    retention = log.under_test.retention
    age_days = (datetime.now(UTC) - month(4)).days

    waits = ArchivedMonth(partition_of(month(4)), None, unknown_bills=2)
    assert retention.archive_month(1, age_days + 1) == waits
    by_hand(log, first)
    assert retention.archive_month(1, age_days + 1) == replace(waits, unknown_bills=1)
    assert by_hand(log, second, 60) is HandOutcome.SETTLED

    assert retention.archive_month(1, age_days + 1) == ArchivedMonth(partition_of(month(4)), 3)
    assert books(log).spent_nano_usd == 60 + 60


def test_a_bill_that_is_too_old_to_be_learned_keeps_no_month(log: PartitionedLedger) -> None:
    """And then it stays posted as it is: there is no row that could be settled."""
    log.make(back=4, months=1)
    ref = log.move(given_up(log), back=4)
    log.under_test.purge()

    assert log.under_test.retention.archive_month(1) == ArchivedMonth(partition_of(month(4)), 1)

    assert by_hand(log, ref) is HandOutcome.ARCHIVED
    assert books(log).spent_nano_usd == 100
    assert log.under_test.operations.actions(limit=1)[0].action != "unknown.settle"


def test_what_is_odd_keeps_its_month_if_its_bill_is_unknown(log: PartitionedLedger) -> None:
    """An answer without usage is as good as none, for its bill."""
    log.make(back=4, months=1)
    ref = log.under_test.answered("odd")
    log.under_test.settle(a_success(ref, 100, anomalies=("usage_missing",)))
    log.move(ref, back=4)
    log.under_test.purge()

    archived = log.under_test.retention.archive_month(1, 36_500)

    assert archived == ArchivedMonth(partition_of(month(4)), None, unknown_bills=1)


def test_nobody_settles_by_hand_while_a_month_is_summed(
    log: PartitionedLedger, postgres_engine: Engine, eventually: Callable[..., None]
) -> None:
    """The sums would miss it: so it waits for the drop, and hears that the month is gone."""
    log.make(back=4, months=1)
    ref = log.move(given_up(log), back=4)
    log.under_test.purge()
    heard: list[HandOutcome] = []
    operator = threading.Thread(target=lambda: heard.append(by_hand(log, ref)))
    with postgres_engine.begin() as dropping:
        assert dropping.execute(text("SELECT callgate_take_upkeep_v1()")).scalar() is True
        operator.start()
        eventually(
            lambda: (
                bool(log.sql("SELECT 1 FROM pg_locks WHERE NOT granted")) or not operator.is_alive()
            )
        )
        dropping.execute(text("SELECT callgate_archive_month_v1(1, 45)"))
    operator.join(10)

    assert heard == [HandOutcome.ARCHIVED]
    assert books(log).spent_nano_usd == 100


def test_young_months_are_kept(log: PartitionedLedger) -> None:
    """`keep_months` whole ones beside the current one."""
    two_old_months(log)
    log.under_test.purge()
    retention = log.under_test.retention

    assert retention.archive_month(4) is None
    assert retention.archive_month(3) == ArchivedMonth(partition_of(month(4)), 3)
    assert retention.archive_month(3) is None


def test_one_process_at_a_time(log: PartitionedLedger, postgres_engine: Engine) -> None:
    """Whoever comes meanwhile leaves the work to the other."""
    two_old_months(log)
    log.under_test.purge()
    with postgres_engine.begin() as busy:
        busy.execute(text("SELECT callgate_make_partitions_v1(now(), 1)"))

        assert log.under_test.retention.archive_month(1) is None
        assert log.make(back=-4, months=1) == 0

    assert log.under_test.retention.archive_month(1) is not None


def test_an_audit_during_a_drop_sees_all_of_it_or_nothing(
    log: PartitionedLedger, postgres_engine: Engine, eventually: Callable[..., None]
) -> None:
    """It waits for the drop before it takes its snapshot, and so has the sums for the rows it cannot see."""
    two_old_months(log)
    log.under_test.purge()
    seen: list[bool] = []

    def look() -> None:
        seen.append(audit(log.under_test.operations.snapshot()).is_clean)

    auditor = threading.Thread(target=look)
    with postgres_engine.begin() as dropping:
        dropping.execute(text("SELECT callgate_archive_month_v1(1, 45)"))
        auditor.start()
        eventually(
            lambda: bool(
                log.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'")
            )
        )
    auditor.join(10)

    assert seen == [True]


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


def test_ids_of_a_moment_are_not_below_its_floor(log: PartitionedLedger) -> None:
    """The bound that look-ups use: above every id of the millisecond before, not above its own."""
    at = datetime(2026, 11, 24, 4, 5, 6, 789_000, tzinfo=UTC)

    ((floor,),) = log.sql("SELECT callgate_uuid_floor_v1(:at)", at=at)

    assert uuid7(at - timedelta(milliseconds=1)) < floor <= uuid7(at)
    assert floor.int >> 80 == int(at.timestamp() * 1000)
