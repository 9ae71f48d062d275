"""Steps of tests about money."""

from __future__ import annotations

from callgate.domain.budgets import RefusalReason
from callgate.domain.calls import CallKey
from callgate.domain.ledger import Refused
from callgate.domain.requests import OnBudget
from tests.support.ledger_under_test import (
    LedgerUnderTest,
    a_reserve,
)

TYPE_SCOPE = "call_type:extraction"


def refused(ledger: LedgerUnderTest, key: CallKey, hold: int, on_budget: OnBudget) -> Refused:
    """Reserve something that has no room."""
    (outcome,) = ledger.reserve(a_reserve(key, hold, on_budget=on_budget))
    assert isinstance(outcome, Refused)
    return outcome


def reason_of(refusal: Refused) -> RefusalReason:
    """Why the ledger said no."""
    assert refusal.refusal is not None
    return refusal.refusal.reason
