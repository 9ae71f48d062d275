"""In which order calls are published that Postgres made due at one time."""

from __future__ import annotations

from sqlalchemy import Engine, text

from callgate.domain.ledger import Refused
from tests.contract.flow_steps import a_rule, declare, released, tried
from tests.support.ledger_under_test import LedgerUnderTest

MAKE_DUE = "UPDATE llm_call SET due_at = '2026-01-01' WHERE call_id = :call_id"


def test_calls_of_one_time_keep_the_order_of_their_line(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """However their rows lie: a large request is not overtaken by one behind it."""
    declare(ledger, a_rule(20))
    keys = [ledger.queued(f"call {n}") for n in range(20)]
    line = [key for key in keys if isinstance(tried(ledger, key), Refused)]
    assert len(line) > 5
    with postgres_engine.begin() as connection:
        for key in reversed(line):
            connection.execute(text(MAKE_DUE), {"call_id": key.call_id})

    assert released(ledger) == line
