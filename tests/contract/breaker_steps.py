"""Steps of tests about breakers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from callgate.domain.breaker import Health
from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.ledger import NotClaimed, Refused, Reserved, Settled
from callgate.domain.reports import BreakerLine, By
from tests.support.ledger_under_test import (
    ORG,
    LedgerUnderTest,
    a_failure,
    a_reserve,
    a_success,
    an_answer,
)

MODEL = "fresh"
"""A model nobody has vouched for."""
BY = By("ada", "the provider said so")


def breakers(ledger: LedgerUnderTest, credential: str = "") -> dict[str, BreakerLine]:
    """The breakers of the fresh model by organisation; the shared one is empty."""
    lines = ledger.operations.breakers()
    return {b.org_id: b for b in lines if (b.model, b.credential) == (MODEL, credential)}


def breaker(ledger: LedgerUnderTest, org_id: str = ORG) -> BreakerLine:
    """One of them: by default that of the organisation that most tests are about."""
    return breakers(ledger)[org_id]


def queued(ledger: LedgerUnderTest, content: str, **changes: Any) -> CallKey:
    """A call to the fresh model."""
    return ledger.queued(content, model=MODEL, **changes)


def claim(ledger: LedgerUnderTest, key: CallKey, **changes: Any) -> AttemptRef | Refused:
    """Try to claim a call."""
    (outcome,) = ledger.reserve(a_reserve(key, 10, **changes))
    assert not isinstance(outcome, NotClaimed)
    if isinstance(outcome, Refused):
        return outcome
    assert isinstance(outcome, Reserved)
    return outcome.ref


def sent(ledger: LedgerUnderTest, content: str, **changes: Any) -> AttemptRef:
    """An attempt at the fresh model that was let through."""
    ref = claim(ledger, queued(ledger, content, **changes))
    assert isinstance(ref, AttemptRef)
    return ref


def waits(ledger: LedgerUnderTest, content: str, **changes: Any) -> CallKey:
    """A call to the fresh model that was not let through."""
    refused = claim(ledger, queued(ledger, content, **changes))
    assert isinstance(refused, Refused)
    assert (refused.state, refused.refusal) == (CallState.WAITING, None)
    return refused.key


def ends(
    ledger: LedgerUnderTest, ref: AttemptRef, health: Health, code: str | None = "server_error"
) -> Settled:
    """Record and settle an attempt; a failed call is dead."""
    ledger.record(an_answer(ref))
    made = a_success(ref, 5) if health is Health.ALIVE else a_failure(ref)
    return ledger.settle(replace(made, health=health, failure_code=code))[0]


def opened(ledger: LedgerUnderTest, org_id: str = ORG) -> None:
    """Open the breaker that an organisation has of the fresh model."""
    for n in range(3):
        ends(ledger, sent(ledger, f"fails {n}", org_id=org_id), Health.FAILED)
    assert breaker(ledger, org_id).is_open


def opened_for_all(ledger: LedgerUnderTest) -> None:
    """Open the shared breaker of the fresh model: two organisations have failed, and acme more often."""
    ledger.set_budget(1_000, org_id="bolt")
    for n, org in enumerate((ORG, ORG, "bolt")):
        ends(ledger, sent(ledger, f"{org} fails {n}", org_id=org), Health.FAILED)
    assert {org for org, b in breakers(ledger).items() if b.is_open} == {""}


def published(ledger: LedgerUnderTest) -> list[CallKey]:
    """The calls that the due query releases now."""
    return [due.key for due in ledger.due(expire=False)]
