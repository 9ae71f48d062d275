"""Steps of tests about bills that nobody knows."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from callgate.domain.calls import AttemptRef, AttemptStatus, CallState
from callgate.domain.unknown import (
    UnknownBill,
    UnknownFilter,
)
from tests.support.ledger_under_test import (
    LedgerUnderTest,
    a_loss,
    a_success,
)

ALL = UnknownFilter()
LEFT_OPEN = AttemptStatus.UNKNOWN


def given_up(ledger: LedgerUnderTest, content: str = "invoice", **changes: Any) -> AttemptRef:
    """A call that is dead because nobody knows what became of its request; 100 are posted."""
    ref = ledger.running(content, **changes)
    assert ledger.settle(a_loss(ref, next_state=CallState.DEAD))[0].is_applied
    return ref


def odd(ledger: LedgerUnderTest, *anomalies: str, posted: int = 100) -> AttemptRef:
    """A success with something odd about it."""
    ref = ledger.answered(f"odd {anomalies}")
    ledger.settle(a_success(ref, posted, anomalies=anomalies))
    return ref


def listed(ledger: LedgerUnderTest, which: UnknownFilter = ALL) -> list[UUID]:
    return [bill.attempt_id for bill in ledger.operations.unknown_bills(which, limit=100)]


def bill(ledger: LedgerUnderTest, ref: AttemptRef) -> UnknownBill:
    return ledger.operations.bills([ref.attempt_id])[ref.attempt_id]
