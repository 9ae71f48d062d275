"""Months of the log that must not be dropped yet, and sessions that drop at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from callgate.domain.calls import AttemptRef, CallState
from callgate.domain.reports import By
from callgate.domain.requests import Usage
from callgate.domain.retention import ArchivedMonth
from callgate.domain.unknown import HandOutcome, SettleByHand
from callgate.services.audit import audit
from tests.support.ledger_under_test import USAGE, a_loss, a_success, an_answer
from tests.support.old_months import clean_snapshot, two_old_months
from tests.support.partitions import (
    PartitionedLedger,
    month,
    partition_of,
)
from tests.support.waiting import until

pytestmark = pytest.mark.long


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

    archived = log.archive_month(1)

    assert archived == ArchivedMonth(partition_of(month(4)), None)
    assert partition_of(month(4)) in log.partitions()
    assert log.sql("SELECT count(*) FROM dropped_month") == [(0,)]


def test_a_month_waits_until_its_bodies_are_purged(log: PartitionedLedger) -> None:
    """Dropping the log never is the way a text disappears."""
    log.make(back=4, months=1)
    log.move(log.under_test.succeeded(), back=4)

    assert log.archive_month(1) == ArchivedMonth(partition_of(month(4)), None)
    log.under_test.purge()
    assert log.archive_month(1) == ArchivedMonth(partition_of(month(4)), 1)


def test_an_archived_month_keeps_the_sums_of_all_tokens(log: PartitionedLedger) -> None:
    log.make(back=4, months=1)
    for content in ("one", "two"):
        log.move(log.under_test.succeeded(content), back=4)
    log.under_test.purge()
    log.archive_month(1)

    sums = ", ".join(f"sum({name}) AS {name}" for name in Usage.model_fields)
    (row,) = log.sql(f"SELECT {sums} FROM quarter_sum")  # noqa: S608 - names of our own
    assert Usage(**row._mapping) == Usage(**{n: 2 * k for n, k in USAGE.model_dump().items()})


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
    age_days = (datetime.now(UTC) - month(4)).days

    waits = ArchivedMonth(partition_of(month(4)), None, unknown_bills=2)
    assert log.archive_month(1, age_days + 1) == waits
    by_hand(log, first)
    assert log.archive_month(1, age_days + 1) == replace(waits, unknown_bills=1)
    assert by_hand(log, second, 60) is HandOutcome.SETTLED

    assert log.archive_month(1, age_days + 1) == ArchivedMonth(partition_of(month(4)), 3)
    assert clean_snapshot(log).spent_nano_usd == 60 + 60


def test_a_bill_that_is_too_old_to_be_learned_keeps_no_month(log: PartitionedLedger) -> None:
    """And then it stays posted as it is: there is no row that could be settled."""
    log.make(back=4, months=1)
    ref = log.move(given_up(log), back=4)
    log.under_test.purge()

    assert log.archive_month(1) == ArchivedMonth(partition_of(month(4)), 1)

    assert by_hand(log, ref) is HandOutcome.ARCHIVED
    assert clean_snapshot(log).spent_nano_usd == 100
    assert log.under_test.operations.actions(limit=1)[0].action != "unknown.settle"


def test_what_is_odd_keeps_its_month_if_its_bill_is_unknown(log: PartitionedLedger) -> None:
    """An answer without usage is as good as none, for its bill."""
    log.make(back=4, months=1)
    ref = log.under_test.answered("odd")
    log.under_test.settle(a_success(ref, 100, anomalies=("usage_missing",)))
    log.move(ref, back=4)
    log.under_test.purge()

    archived = log.archive_month(1, 36_500)

    assert archived == ArchivedMonth(partition_of(month(4)), None, unknown_bills=1)


def test_nobody_settles_by_hand_while_a_month_is_summed(
    log: PartitionedLedger, postgres_engine: Engine
) -> None:
    """The sums would miss it: so it waits for the drop, and hears that the month is gone."""
    log.make(back=4, months=1)
    ref = log.move(given_up(log), back=4)
    log.under_test.purge()
    log.prove()
    heard: list[HandOutcome] = []
    operator = threading.Thread(target=lambda: heard.append(by_hand(log, ref)))
    with postgres_engine.begin() as dropping:
        assert dropping.execute(text("SELECT callgate_take_upkeep_v1()")).scalar() is True
        operator.start()
        until(
            lambda: (
                bool(log.sql("SELECT 1 FROM pg_locks WHERE NOT granted")) or not operator.is_alive()
            )
        )
        dropping.execute(text("SELECT callgate_archive_month_v1(1, 45)"))
    operator.join(10)

    assert heard == [HandOutcome.ARCHIVED]
    assert clean_snapshot(log).spent_nano_usd == 100


def test_young_months_are_kept(log: PartitionedLedger) -> None:
    """`keep_months` whole ones beside the current one."""
    two_old_months(log)
    log.under_test.purge()

    assert log.archive_month(4) is None
    assert log.archive_month(3) == ArchivedMonth(partition_of(month(4)), 3)
    assert log.archive_month(3) is None


def test_one_process_at_a_time(log: PartitionedLedger, postgres_engine: Engine) -> None:
    """A process that comes meanwhile leaves the work to the other."""
    two_old_months(log)
    log.under_test.purge()
    with postgres_engine.begin() as busy:
        busy.execute(text("SELECT callgate_make_partitions_v1(now(), 1)"))

        assert log.archive_month(1) is None
        assert log.make(back=-4, months=1) == 0

    assert log.archive_month(1) is not None


def test_an_audit_during_a_drop_sees_all_of_it_or_nothing(
    log: PartitionedLedger, postgres_engine: Engine
) -> None:
    """It waits for the drop before it takes its snapshot, and so has the sums for the rows it cannot see."""
    two_old_months(log)
    log.under_test.purge()
    log.prove()
    seen: list[bool] = []

    def look() -> None:
        seen.append(audit(log.under_test.operations).is_clean)

    auditor = threading.Thread(target=look)
    with postgres_engine.begin() as dropping:
        dropping.execute(text("SELECT callgate_archive_month_v1(1, 45)"))
        auditor.start()
        until(
            lambda: bool(
                log.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'")
            )
        )
    auditor.join(10)

    assert seen == [True]
