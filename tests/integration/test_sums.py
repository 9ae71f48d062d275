"""Sums while everybody works: settlements, folds and proofs at once; and what changes rows beside the functions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, time, timedelta

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.sums import PostgresSums
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.ledger import RecordOutcome
from callgate.services.audit import audit
from callgate.services.sums import SumsService
from tests.support.ledger_under_test import (
    LedgerUnderTest,
    a_loss,
    a_submission,
    a_success,
    an_answer,
    open_postgres,
)

CALLS = 40


@pytest.fixture
def session(postgres_engine: Engine) -> Iterator[PostgresSession]:
    """Connections to an empty ledger."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url)) as session:
        yield session


@pytest.fixture
def ledger(session: PostgresSession) -> LedgerUnderTest:
    """An empty ledger."""
    ledger = open_postgres(session)
    ledger.set_budget(10**9)
    return ledger


def settle_in_many_ways(ledger: LedgerUnderTest, name: str) -> None:
    """Successes, losses with late answers, and duplicates."""
    for n in range(CALLS):
        content = f"{name} {n}"
        ref = ledger.running(content, 10)
        ledger.submit(a_submission(content))
        if n % 3 == 0:
            ledger.settle(a_loss(ref, next_state=CallState.DEAD))
            assert ledger.record(an_answer(ref)) == [RecordOutcome.LATE]
            ledger.settle(a_success(ref, 3, expected_status=AttemptStatus.UNKNOWN))
        else:
            ledger.record(an_answer(ref))
            ledger.settle(a_success(ref, 5))
            ledger.submit(a_submission(content))


@pytest.mark.parametrize(
    "others", ["callgate_prove_sums_v1(:day, :day + interval '1 day')", "callgate_fold_sums_v1(1)"]
)
def test_a_proof_seals_beside_other_proofs_but_not_beside_changes(
    postgres_engine: Engine, session: PostgresSession, ledger: LedgerUnderTest, others: str
) -> None:
    """Of other days. A session that changes sums may change those that were just compared."""
    settle_in_many_ways(ledger, "a")
    yesterday = datetime.combine(datetime.now(UTC).date() - timedelta(days=1), time(), UTC)
    with postgres_engine.begin() as connection:
        day = {"day": yesterday - timedelta(days=1)} if ":day" in others else {}
        connection.execute(text(f"SELECT {others}"), day)
        proof = PostgresSums(session).prove_sums(yesterday, yesterday + timedelta(days=1))

    assert proof.is_clean
    assert proof.sealed == (96 if day else 0)


def test_sums_are_right_while_everybody_works(
    session: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """Two settle, one folds, one audits all the time: no audit finds anything, and nothing is lost."""
    is_over, found = threading.Event(), []

    def fold() -> None:
        while not is_over.is_set():
            PostgresSums(session).fold_sums(limit=7)

    def prove() -> None:
        while not is_over.is_set():
            found.append(audit(PostgresOperations(session)))

    others = [threading.Thread(target=task) for task in (fold, prove)]
    settlers = [
        threading.Thread(target=settle_in_many_ways, args=(ledger, name)) for name in ("a", "b")
    ]
    for thread in (*others, *settlers):
        thread.start()
    for thread in settlers:
        thread.join(120)
    is_over.set()
    for thread in others:
        thread.join(30)

    assert found
    assert [report for report in found if not report.is_clean] == []
    late = len(range(0, CALLS, 3))
    (line,) = ledger.operations.costs()
    assert line.used.posted_nano_usd == 2 * (3 * late + 5 * (CALLS - late))
    assert line.used.attempts == 2 * CALLS
    SumsService(PostgresSums(session)).fold()
    assert ledger.operations.costs() == [line]


def test_two_processes_do_not_fold_at_once(
    session: PostgresSession, ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """The second leaves it to the first, and nobody who settles waits for either."""
    ledger.succeeded("one")
    with postgres_engine.begin() as other:
        assert other.execute(text("SELECT callgate_fold_sums_v1(1000)")).scalar() == 1
        assert PostgresSums(session).fold_sums(limit=1_000) == 0
        ledger.succeeded("two")
        assert audit(ledger.operations).is_clean
    assert audit(ledger.operations).is_clean


def test_what_is_changed_by_hand_is_in_the_sums(
    session: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """The owner corrects a row: the sums follow it, and the budget that does not is found."""
    ref = ledger.succeeded("one", 60)
    session.rows(
        "UPDATE ai_call_log SET posted_nano_usd = 61, model = 'm' WHERE attempt_id = %(id)s::uuid",
        {"id": str(ref.attempt_id)},
    )

    (line,) = ledger.operations.costs()
    report = audit(ledger.operations)

    assert (line.model, line.used.posted_nano_usd, line.used.attempts) == ("m", 61, 1)
    assert report.proof.is_clean
    assert (report.drift_nano_usd, report.is_clean) == (1, False)


def test_a_row_whose_id_is_of_another_time_is_compared_too(
    session: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """Rows are found by their ids, which say when they were made; but a clock may have been wrong."""
    ids = {"id": str(ledger.succeeded("one", 60).attempt_id)}
    ledger.succeeded("two", 60)
    move = "UPDATE ai_call_log SET started_at = started_at - interval '3 days' WHERE attempt_id = %(id)s::uuid"
    session.rows(move, ids)
    SumsService(PostgresSums(session)).fold()
    assert audit(ledger.operations, everything=True).is_clean

    session.rows(
        "UPDATE quarter_sum SET calls = calls + 1 WHERE starts_at < now() - interval '2 days'", {}
    )

    assert audit(ledger.operations, everything=True).proof.wrong_sums == 1


def test_sums_that_are_wrong_are_found_and_corrected(
    session: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """By the owner, for a day; doing it again changes nothing."""
    ledger.succeeded("one", 60)
    ledger.sums.fold_sums(limit=100)
    session.rows("UPDATE quarter_sum SET posted_nano_usd = 7", {})
    session.rows("UPDATE budget_sum SET posted_nano_usd = 7", {})
    today = "(now() AT TIME ZONE 'UTC')::date"
    assert audit(ledger.operations).proof.wrong_sums > 0

    for appended in (1, 0):
        (row,) = session.rows(f"SELECT callgate_correct_sums_v1({today}) AS n", {})
        assert row.n == appended
        ledger.sums.fold_sums(limit=100)
        session.rows("UPDATE day_sum SET posted_nano_usd = 60", {})

    assert audit(ledger.operations).is_clean
