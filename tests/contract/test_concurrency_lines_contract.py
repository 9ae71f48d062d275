"""What operators see of how many calls run at a time."""

from __future__ import annotations

from callgate.domain.concurrency import CallsOf
from callgate.domain.reports import ConcurrencyLine
from tests.contract.concurrency_steps import allow, in_line
from tests.contract.flow_steps import sent
from tests.support.ledger_under_test import DAY_S, ORG, LedgerUnderTest

OTHER = "bolt"


def test_it_is_listed_with_what_runs_and_waits(ledger: LedgerUnderTest) -> None:
    """As declared, and for each organisation with calls that run or wait."""
    ledger.set_budget(1_000, org_id=OTHER)
    allow(ledger, {"": 5, "calm": 7, ORG: 2}, {"extraction": 1, "free": None})
    sent(ledger, "a")
    in_line(ledger, "b", "c")
    sent(ledger, "d", call_type="free")
    sent(ledger, "e", org_id=OTHER, call_type="free")

    org, call_type = CallsOf.ORGANISATION, CallsOf.CALL_TYPE
    assert ledger.operations.concurrency() == [
        ConcurrencyLine("", "", org, 5, 0, 0),
        ConcurrencyLine("", "extraction", call_type, 1, 0, 0),
        ConcurrencyLine(ORG, "", org, 2, 2, 2),
        ConcurrencyLine(ORG, "extraction", call_type, 1, 1, 2),
        ConcurrencyLine(OTHER, "", org, 5, 1, 0),
        ConcurrencyLine("calm", "", org, 7, 0, 0),
    ]


def test_nothing_is_listed_where_nothing_is_declared(ledger: LedgerUnderTest) -> None:
    sent(ledger, "a")
    assert ledger.operations.concurrency() == []
    allow(ledger, {}, {"extraction": DAY_S})
    assert [line.amount for line in ledger.operations.concurrency()] == [DAY_S, DAY_S]
