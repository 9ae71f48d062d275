"""When a call that waits can be sent: by the limit that lasts longest, or when its key is unblocked."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from callgate.domain.breaker import Health
from callgate.domain.calls import AttemptRef, CallState
from callgate.domain.limits import DAY_S, MINUTE_S, Measure
from callgate.services.earliest import earliest_at
from tests.contract.flow_steps import BY, MODEL, a_rule, declare, is_limited, sent, tried, waits
from tests.support.ledger_under_test import LedgerUnderTest, a_failure, an_answer, open_memory


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


def wait_s(ledger: LedgerUnderTest, content: str) -> float | None:
    """After how many seconds the call of that content can be sent."""
    now = ledger.now()
    at = earliest_at(ledger.view(ledger.queued(content)), ledger.operations, now)
    return None if at is None else (at - now).total_seconds()


def test_it_waits_until_the_limit_has_filled(ledger: LedgerUnderTest) -> None:
    """Two a day, of which one may be used at once: the next is free after a whole day."""
    declare(ledger, a_rule(2))
    sent(ledger, "first")
    waits(ledger, "second")
    assert wait_s(ledger, "second") == pytest.approx(DAY_S / 2, rel=0.01)
    ledger.age(DAY_S / 4)

    assert wait_s(ledger, "second") == pytest.approx(DAY_S / 4, rel=0.01)


def test_of_several_limits_the_longest_wait_counts(ledger: LedgerUnderTest) -> None:
    """Of those of its own key and model."""
    declare(
        ledger,
        a_rule(2),
        a_rule(2, window_s=MINUTE_S),
        a_rule(1_000, measure=Measure.CONCURRENCY, window_s=0),
        a_rule(1, credential="bolt"),
        a_rule(1, model="other", is_shared=True),
    )
    sent(ledger, "first")
    waits(ledger, "second")

    assert wait_s(ledger, "second") == pytest.approx(DAY_S / 2, rel=0.01)


def test_a_large_request_waits_for_an_unused_window(ledger: LedgerUnderTest) -> None:
    """Its 100 input tokens are more than half of the limit."""
    declare(ledger, a_rule(150, measure=Measure.INPUT_TOKENS))
    sent(ledger, "first")
    waits(ledger, "second")
    ledger.age(600)

    assert wait_s(ledger, "second") == pytest.approx(DAY_S - 600, abs=2)


def test_a_blocked_key_names_when_it_is_unblocked(ledger: LedgerUnderTest) -> None:
    """The provider said how long."""
    ref = sent(ledger, "refused")
    is_limited(ledger, ref, retry_after_s=40.0)
    view = ledger.view(ref.key)
    assert view.state is CallState.WAITING

    assert earliest_at(view, ledger.operations, ledger.now()) == _probe_at(ledger)


def test_a_call_that_waits_for_its_provider_names_the_next_probe(ledger: LedgerUnderTest) -> None:
    """Also if only the breaker of its organisation is open."""
    key = ledger.queued("waits")
    while isinstance(ref := tried(ledger, ledger.queued(f"fails {uuid4()}")), AttemptRef):
        ledger.record(an_answer(ref, reply=None, error="{}"))
        ledger.settle(a_failure(ref, health=Health.FAILED))
    waits(ledger, "waits")

    assert earliest_at(ledger.view(key), ledger.operations, ledger.now()) == _probe_at(ledger)


def test_what_an_operator_has_closed_has_no_time(ledger: LedgerUnderTest) -> None:
    ledger.operations.set_breaker("openai", MODEL, "", is_open=True, by=BY)
    waits(ledger, "waits")

    assert wait_s(ledger, "waits") is None


def test_other_waits_have_no_such_time(ledger: LedgerUnderTest) -> None:
    """Their due time says when they go on."""
    declare(ledger, a_rule(2))
    ledger.waiting("retry", due_in_s=60.0)

    assert wait_s(ledger, "retry") is None


def _probe_at(ledger: LedgerUnderTest) -> object:
    (breaker,) = [b for b in ledger.operations.breakers() if b.is_open]
    assert breaker.probe_at is not None
    assert breaker.probe_at - ledger.now() > timedelta(0)
    return breaker.probe_at
