"""What is before a call that waits for a place, or for money that calls in flight hold."""

from __future__ import annotations

from callgate.domain.call_order import Priority
from callgate.domain.calls import CallKey
from callgate.domain.reports import Ahead
from tests.contract.concurrency_steps import allow, in_line
from tests.contract.flow_steps import a_rule, declare, sent, waits
from tests.support.ledger_under_test import LIMIT, LedgerUnderTest, a_reserve


def held(ledger: LedgerUnderTest, name: str, **changes: object) -> CallKey:
    """A new call that waits for held money, a second younger than the one before."""
    ledger.age(1)
    key = ledger.queued(name, **changes)
    ledger.reserve(a_reserve(key))
    return key


def test_calls_before_one_in_line_are_counted(ledger: LedgerUnderTest) -> None:
    """By class, then by age; those of its type apart."""
    allow(ledger, {"": 1})
    sent(ledger, "runs")
    first, second = in_line(ledger, "a", "b")
    (other,) = in_line(ledger, "c", call_type="summary")
    (urgent,) = in_line(ledger, "d", priority=Priority.INTERACTIVE)

    ahead = [ledger.operations.ahead(key) for key in (urgent, first, second, other)]
    assert ahead == [Ahead(0, 0), Ahead(1, 1), Ahead(2, 2), Ahead(0, 3)]


def test_older_calls_that_wait_for_money_are_counted(ledger: LedgerUnderTest) -> None:
    """They are tried first when some is free."""
    ledger.running("holds all", LIMIT)
    keys = [held(ledger, "a"), held(ledger, "b", call_type="summary"), held(ledger, "c")]

    ahead = [ledger.operations.ahead(key) for key in keys]
    assert ahead == [Ahead(0, 0), Ahead(0, 1), Ahead(1, 2)]


def test_nothing_is_said_of_other_calls(ledger: LedgerUnderTest) -> None:
    """One that runs, and one that waits for a limit."""
    declare(ledger, a_rule(2))
    ref = sent(ledger, "runs")
    assert ledger.operations.ahead(ref.key) is None
    assert ledger.operations.ahead(waits(ledger, "waits")) is None
