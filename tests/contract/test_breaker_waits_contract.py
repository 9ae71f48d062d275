"""Breakers: calls that wait for a provider, on both ledgers."""

from __future__ import annotations

from callgate.domain.breaker import UNAVAILABLE_CODE, Health
from callgate.domain.calls import AttemptRef, CallState
from callgate.domain.ledger import Refused
from callgate.domain.reports import EndReason
from tests.contract.breaker_steps import (
    BY,
    MODEL,
    breaker,
    claim,
    opened,
    opened_for_all,
    published,
    queued,
    waits,
)
from tests.support.ledger_under_test import (
    LedgerUnderTest,
    a_failure,
    a_reserve,
    a_submission,
    an_answer,
)


def test_who_was_released_and_is_no_probe_passes_its_turn(ledger: LedgerUnderTest) -> None:
    """An organisation without money for its calls keeps nobody from looking whether the provider is back."""
    opened_for_all(ledger)
    for n in range(3):
        waits(ledger, f"acme {n}")
    waits(ledger, "bolt", org_id="bolt")
    ledger.age(10)
    (first,) = published(ledger)
    poor = ledger.view(first).org_id
    (refused,) = ledger.reserve(a_reserve(first, 1_001))
    assert isinstance(refused, Refused)

    (second,) = published(ledger)

    assert {poor, ledger.view(second).org_id} == {"acme", "bolt"}
    assert isinstance(claim(ledger, second), AttemptRef)


def test_patience_has_an_end(ledger: LedgerUnderTest) -> None:
    """After `wait_max_s`, counted from the first refusal, the call is rejected, unpaid."""
    opened(ledger)
    key = queued(ledger, "patient")
    claim(ledger, key, wait_max_s=60.0)
    ledger.operations.set_breaker("openai", MODEL, "", is_open=True, by=BY)
    ledger.age(59)
    assert published(ledger) == []
    ledger.age(1)
    assert published(ledger) == [key]

    refused = claim(ledger, key, wait_max_s=60.0)

    assert isinstance(refused, Refused)
    assert refused.state is CallState.REJECTED
    assert UNAVAILABLE_CODE in (ledger.view(key).error or "")
    assert ledger.figures() == (0, 0)


def test_patience_ends_for_a_call_that_is_always_the_probe(ledger: LedgerUnderTest) -> None:
    """It never waits for a breaker in between, and still it is rejected in the end."""
    opened(ledger)
    ledger.age(10)
    key = queued(ledger, "alone")
    ref = claim(ledger, key, wait_max_s=60.0)
    assert isinstance(ref, AttemptRef)
    ledger.record(an_answer(ref))
    ledger.settle(
        a_failure(ref, CallState.WAITING, due_in_s=60.0, health=Health.FAILED, failure_code="x")
    )
    ledger.age(60)
    assert published(ledger) == [key]

    refused = claim(ledger, key, wait_max_s=60.0)

    assert isinstance(refused, Refused)
    assert refused.state is CallState.REJECTED


def test_a_budget_is_asked_first(ledger: LedgerUnderTest) -> None:
    """A call that never fits is refused at once, whatever its provider does."""
    opened(ledger)

    (refused,) = ledger.reserve(a_reserve(queued(ledger, "large"), 1_001))

    assert isinstance(refused, Refused)
    assert (refused.state, refused.refusal is None) == (CallState.REJECTED, False)


def test_a_cancelled_call_waits_no_longer(ledger: LedgerUnderTest) -> None:
    """It is not counted, and not released."""
    opened(ledger)
    key = waits(ledger, "patient")

    ledger.operations.end([key], code=EndReason.CANCELLED, message="")

    assert breaker(ledger).waiting == 0
    ledger.age(10)
    assert published(ledger) == []


def test_a_long_queue_is_released_in_portions(ledger: LedgerUnderTest) -> None:
    """Two hundred at a time; the next ones when those are claimed."""
    ledger.set_budget(100_000)
    opened(ledger)
    keys = [
        answer.key
        for answer in ledger.submit(*(a_submission(f"call {n}", model=MODEL) for n in range(250)))
    ]
    ledger.reserve(*(a_reserve(key, 10) for key in keys))
    assert breaker(ledger).waiting == 250

    ledger.operations.set_breaker("openai", MODEL, "", is_open=False, by=BY)

    first = [due.key for due in ledger.due(limit=1_000, expire=False)]
    assert len(first) == 200
    assert ledger.due(limit=1_000, expire=False) == ()
    ledger.reserve(*(a_reserve(key, 10) for key in first))
    assert len(ledger.due(limit=1_000, expire=False)) == 50
