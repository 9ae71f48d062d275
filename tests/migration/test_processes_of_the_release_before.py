"""Processes of the release before read what newer ones wrote, in the words that they know."""

from __future__ import annotations

from contextlib import closing
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import AttemptRef, CallKey, CallState
from tests.contract.concurrency_steps import allow, in_line
from tests.contract.flow_steps import (
    a_rule,
    declare,
    is_limited,
    released,
    sent,
    succeeds,
    tried,
    waits,
)
from tests.support.ledger_under_test import LIMIT, LedgerUnderTest, an_answer, open_postgres

KINDS = {"call", "probe"}
"""Of 0.1.0."""
WAIT_REASONS = {
    *("retry", "budget_held", "budget_exhausted", "provider", "quarantine", "memory", "locked"),
    None,
}
TAKE = text("SELECT call_id FROM callgate_take_due_v1(100, NULL, 0)")
RESERVE = text(
    "SELECT attempt_id FROM callgate_reserve_v1(ARRAY[:call_id]::uuid[], '{1}', '{reserve}', ARRAY[:hold]::bigint[],"
    " '{60}', '{before/1}', '{x}', '{NULL}', '{f}', '{NULL}', '{\"\"}', '{60}', '{NULL}', '{0}', '{NULL}')"
)
SETTLE = text(
    "SELECT applied FROM callgate_settle_v1(ARRAY[:call_id]::uuid[], '{1}', ARRAY[:attempt_id]::uuid[], '{answered}',"
    " '{failed}', '{0}', '{waiting}', '{3600}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}',"
    " '{{}}', '{NULL}', '{alive}', '{NULL}', '{NULL}')"
)
IS_IN_LINE = text("SELECT is_in_line FROM llm_call WHERE call_id = :call_id")
READ = text("SELECT * FROM callgate_read_v1(ARRAY[:call_id]::uuid[], '{1}', '{NULL}', 0, true, 1)")


def read_before(engine: Engine, key: CallKey) -> tuple[str | None, str | None, int]:
    """What 0.1.0 reads of a call: the kind of its attempt, why it waits, and its uncounted attempts."""
    with engine.connect() as connection:
        row = connection.execute(READ, {"call_id": key.call_id}).one()
    return row.kind, row.wait_reason, row.free_probes


def test_their_words_are_used(postgres_engine: Engine) -> None:
    """For the kinds of attempts, and for why a call waits."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url)) as session:
        ledger: LedgerUnderTest = open_postgres(session)
        declare(ledger, a_rule(2))
        first = sent(ledger, "first")
        waiting = waits(ledger, "second")

        assert read_before(postgres_engine, first.key) == ("call", None, 0)
        kind, reason, _ = read_before(postgres_engine, waiting)
        assert kind is None
        assert reason in WAIT_REASONS
        assert is_limited(ledger, first).is_applied
        kind, reason, uncounted = read_before(postgres_engine, first.key)
        assert kind in KINDS
        assert (reason, uncounted) == ("provider", 1)


@pytest.mark.parametrize("hold", [1, LIMIT - 2], ids=["retries it", "waits for held money"])
def test_a_call_that_they_took_out_of_a_line_leaves_it(postgres_engine: Engine, hold: int) -> None:
    """They know nothing of lines. Its place is free for others, and the next one that finds the call mends it."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url)) as session:
        ledger = open_postgres(session)
        allow(ledger, {"": 2})
        ledger.running("holds half of the budget", LIMIT // 2)
        running = sent(ledger, "first", call_type="other")
        (key,) = in_line(ledger, "waits")
        succeeds(ledger, running)
        _claimed_before(postgres_engine, ledger, key, hold)
        assert ledger.state(key) is CallState.WAITING

        assert {line.waiting for line in ledger.operations.concurrency()} == {0}
        ref = sent(ledger, "new")
        succeeds(ledger, ref)
        ledger.age(3_601)
        assert released(ledger) == [key]
        with postgres_engine.connect() as connection:
            assert connection.scalar(IS_IN_LINE, {"call_id": key.call_id}) is False
        assert isinstance(tried(ledger, key), AttemptRef)


def _claimed_before(engine: Engine, ledger: LedgerUnderTest, key: CallKey, hold: int) -> None:
    """A worker of 0.1.0 takes a call that was woken, and tries it in vain."""
    with engine.begin() as connection:
        assert connection.scalars(TAKE).all() == [key.call_id]
    with engine.begin() as connection:
        parameters = {"call_id": key.call_id, "hold": hold}
        attempt_id: UUID | None = connection.scalar(RESERVE, parameters)
    if attempt_id is None:
        return
    ledger.record(an_answer(AttemptRef(key, attempt_id), reply=None, error="{}"))
    with engine.begin() as connection:
        parameters = {"call_id": key.call_id, "attempt_id": attempt_id}
        assert connection.scalar(SETTLE, parameters) is True
