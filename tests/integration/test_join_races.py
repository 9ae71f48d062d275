"""A submission joins while its call is settled: settle either sees it or comes again, so nobody goes untold."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.domain.calls import CallState
from callgate.domain.ledger import Locked, SubmitOutcome
from tests.support.ledger_under_test import LINK, LedgerUnderTest, a_submission, a_success
from tests.support.open_transaction import OpenTransaction


@pytest.mark.parametrize("link", [LINK, None])
def test_settle_leaves_a_call_that_a_submission_joins(
    ledger: LedgerUnderTest, postgres_engine: Engine, link: str | None
) -> None:
    """It was promised an open call; a settlement that ends the call must know of it."""
    ref = ledger.answered()
    joining = a_submission(link=link)
    with postgres_engine.begin() as connection:
        session = OpenTransaction(connection)
        (joined,) = PostgresLedger(session).submit([joining])
        assert ledger.ledger.settle([a_success(ref)]) == [Locked(ref.key)]
    (settled,) = ledger.settle(a_success(ref))

    assert joined.outcome is SubmitOutcome.JOINED
    assert settled.state is CallState.SUCCEEDED
    told = [link.submission_id for link in ledger.links(keys=[settled.ref.key])]
    assert told == ([joining.submission_id] if link else [])
