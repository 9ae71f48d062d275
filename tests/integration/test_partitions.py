"""Partitions of the log: created ahead, and looked up without visiting the past."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from callgate.adapters.memory.ledger import uuid7
from callgate.domain.calls import CallKey, CallState
from callgate.domain.errors import RowRefused
from callgate.domain.retention import Partitions
from tests.support.ledger_under_test import a_submission
from tests.support.old_months import clean_snapshot
from tests.support.partitions import (
    PartitionedLedger,
    month,
    partition_of,
)

RETENTION_ADR = Path(__file__).parents[2] / "docs" / "adr" / "0010-retention.md"
TOUCHED = """
SELECT relname FROM pg_stat_xact_user_tables
 WHERE relname LIKE 'ai\\_call\\_log\\_____\\___' AND idx_scan + seq_scan > 0
"""

READ_OF_DEFAULT = """
SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'ai_call_log_default'
"""

LIFE = (
    (
        "SELECT callgate_reserve_v2(ARRAY[:call_id]::uuid[], '{1}', '{reserve}', '{5}', '{30}', '{w}', '{p}',"
        " '{NULL}', '{f}', '{NULL}', '{\"\"}', '{60}', '{NULL}', '{NULL}', '{NULL}',"
        " '{0}', '{0}', '{NULL}')"
    ),
    "SELECT callgate_read_v2(ARRAY[:call_id]::uuid[], '{1}', '{NULL}', 1000, true, 1)",
    "SELECT callgate_record_v1(ARRAY[:attempt_id]::uuid[], '{x}', '{NULL}', '{1}', '{NULL}')",
    (
        "SELECT callgate_settle_v2(ARRAY[:call_id]::uuid[], '{1}', ARRAY[:attempt_id]::uuid[], '{answered}',"
        " '{succeeded}', '{5}', '{succeeded}', '{NULL}', '{1}', '{0}', '{0}', '{1}', '{0}', '{0}', '{NULL}', '{NULL}',"
        " '{NULL}', '{NULL}', '{alive}', '{NULL}', '{NULL}', '{0}')"
    ),
    "SELECT callgate_read_v2(ARRAY[:call_id]::uuid[], '{1}', ARRAY[:attempt_id]::uuid[], 1000, true, 1)",
    "SELECT callgate_deliver_v1(ARRAY[:link]::uuid[], '{NULL}', '{NULL}')",
    "SELECT callgate_purge_v1('{}', '{}', 0, 10, false)",
)
"""The statements of a call's whole life: claim, send, record, settle, deliver, purge."""

MANY_ROWS = """
INSERT INTO ai_call_log (attempt_id, call_id, generation, attempt, org_id, input_hash, call_type, provider, model,
                         status, hold_nano_usd, posted_nano_usd, posted_at, budget_ids, queue_ms, worker_id, error_json)
SELECT (left(CAST(:first_id AS text), 24) || lpad(to_hex(n), 12, '0'))::uuid, gen_random_uuid(), 1, 1, 'o',
       sha256('x'), 't', 'p', 'm', 'failed', 0, 0, now(), '{}', 0, 'w', repeat('x', 1800)
  FROM generate_series(1, 10000) n
"""


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
    clean_snapshot(log)
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


@pytest.mark.parametrize("are_counted", [False, True], ids=["never analyzed", "analyzed"])
def test_no_look_up_visits_the_past(
    log: PartitionedLedger, postgres_engine: Engine, *, are_counted: bool
) -> None:
    """
    Over the whole life of a call, two years of partitions cost nothing.

    Postgres counts rows when it likes. A planner that knows how small tables are joins them in another order.
    """
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
        if are_counted:
            log.sql("ANALYZE")
        with postgres_engine.begin() as connection:
            connection.execute(text(statement), values).all()
            return {name for (name,) in connection.execute(text(TOUCHED))}

    touched = [touched_by(statement) for statement in LIFE]

    assert (ledger.state(key), ledger.view(key).is_purged) == (CallState.SUCCEEDED, True)
    # Delivery looks at no attempt.
    assert touched[-2] == set()
    assert all(partition_of(datetime.now(UTC)) in names for names in (*touched[1:-2], touched[-1]))
    assert [names - recent for names in touched] == [set()] * len(LIFE)


def attempt_id(log: PartitionedLedger, key: CallKey) -> object:
    """The attempt a call has now, if any."""
    ((found,),) = log.sql("SELECT attempt_id FROM llm_call WHERE call_id = :id", id=key.call_id)
    return found


def test_ids_of_a_moment_are_not_below_its_floor(log: PartitionedLedger) -> None:
    """The bound that look-ups use: above every id of the millisecond before, not above its own."""
    at = datetime(2026, 11, 24, 4, 5, 6, 789_000, tzinfo=UTC)

    ((floor,),) = log.sql("SELECT callgate_uuid_floor_v1(:at)", at=at)

    assert uuid7(at - timedelta(milliseconds=1)) < floor <= uuid7(at)
    assert floor.int >> 80 == int(at.timestamp() * 1000)
