"""Processes of the release before read what newer ones wrote, in the words that they know."""

from __future__ import annotations

from contextlib import closing

from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallKey
from tests.contract.flow_steps import a_rule, declare, is_limited, sent, waits
from tests.support.ledger_under_test import LedgerUnderTest, open_postgres

KINDS = {"call", "probe"}
"""Of 0.1.0."""
WAIT_REASONS = {
    *("retry", "budget_held", "budget_exhausted", "provider", "quarantine", "memory", "locked"),
    None,
}
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
