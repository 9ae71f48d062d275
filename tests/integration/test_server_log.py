"""What Postgres itself writes down of our statements: its log has other readers than its tables."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import Engine

from callgate.domain.errors import LedgerUnavailable
from devkit.servers.embedded import DevServers
from tests.support.ledger_under_test import LINK, LedgerUnderTest, a_submission, an_answer

pytestmark = pytest.mark.long


def test_a_statement_that_fails_is_not_quoted(
    ledger: LedgerUnderTest, services: DevServers, postgres_engine: Engine
) -> None:
    """Neither a prompt nor an answer, when a lock is not free in time; but that it failed is told."""
    text = f"canary {uuid4()}"
    key = ledger.queued(text)
    ref = ledger.claim(key)
    log = services.postgres.program.log
    before = log.stat().st_size

    with postgres_engine.begin() as connection:
        connection.exec_driver_sql("SELECT FROM llm_call FOR UPDATE")
        connection.exec_driver_sql("SELECT FROM ai_call_log FOR UPDATE")
        with pytest.raises(LedgerUnavailable):
            ledger.submit(a_submission(text, link=LINK))
        with pytest.raises(LedgerUnavailable):
            ledger.record(an_answer(ref, reply=text.encode()))

    written = log.read_bytes()[before:].decode(errors="replace")
    assert "lock timeout" in written
    assert text.encode().hex() not in written
    assert text not in written
