"""A submission joins while its call is settled: settle either sees it or waits for it, so nobody goes untold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from callgate.adapters.postgres_ledger import PostgresLedger
from callgate.db.session import PostgresSession
from callgate.domain.ledger import CallState, SubmitOutcome
from tests.contract.harness import LINK, LedgerUnderTest, a_submission, a_success

WAITING = """SELECT count(*) FROM pg_stat_activity
 WHERE wait_event_type = 'Lock' AND query LIKE '%settle_v1%' AND pid <> pg_backend_pid()"""


class OpenTransaction(PostgresSession):
    """Runs a ledger's statements on one connection, and leaves the transaction open."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[Any]:
        """Run one statement within it."""
        return list(self._connection.exec_driver_sql(sql, dict(parameters)))


@pytest.mark.parametrize("link", [LINK, None])
def test_settle_waits_for_a_submission_that_joins(
    ledger: LedgerUnderTest,
    postgres_engine: Engine,
    eventually: Callable[[Callable[[], bool]], None],
    link: str | None,
) -> None:
    """It was promised an open call; whoever ends the call must know of it."""
    ref = ledger.answered()
    joining = a_submission(link=link)
    with ThreadPoolExecutor(1) as pool:
        with postgres_engine.begin() as connection:
            session = OpenTransaction(connection)
            (joined,) = PostgresLedger(session).submit([joining])
            settling = pool.submit(ledger.settle, a_success(ref))
            with postgres_engine.connect() as watcher:
                eventually(lambda: bool(watcher.scalar(text(WAITING))))
        (settled,) = settling.result()

    assert joined.outcome is SubmitOutcome.JOINED
    assert settled.state is CallState.SUCCEEDED
    told = [link.submission_id for link in ledger.links(keys=[settled.ref.key])]
    assert told == ([joining.submission_id] if link else [])
