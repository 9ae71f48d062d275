"""Steps of tests about provider limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from callgate.domain.breaker import Health
from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.ledger import Refused, Reserved, Settled
from callgate.domain.limits import DAY_S, Declaration, Learned, LearnedLimit, LimitRule, Measure
from callgate.domain.reports import By
from tests.support.ledger_under_test import (
    ORG,
    LedgerUnderTest,
    a_failure,
    a_reserve,
    a_success,
    an_answer,
)

MODEL = "gpt-4o-mini"
"""The model that the ledger under test knows to answer."""
WORKER = "host:1:worker"
BY = By("tests", "it answers")


def a_rule(amount: int, **changes: Any) -> LimitRule:
    """A limit of requests per day of each model. Within a test, hardly any come back by themselves."""
    rule = LimitRule("openai", "*", "", False, Measure.REQUESTS, DAY_S, amount, False)
    return replace(rule, **changes)


def declare(ledger: LedgerUnderTest, *rules: LimitRule, cautious: tuple[str, ...] = ()) -> None:
    """Let these limits count, and no others."""
    ledger.flow.publish(WORKER, Declaration(rules, cautious))


def tried(ledger: LedgerUnderTest, key: CallKey, **changes: Any) -> AttemptRef | Refused:
    """Try to claim a queued call."""
    (outcome,) = ledger.reserve(a_reserve(key, 1, wait_max_s=30 * DAY_S, **changes))
    assert isinstance(outcome, Reserved | Refused)
    return outcome.ref if isinstance(outcome, Reserved) else outcome


def sent(ledger: LedgerUnderTest, content: str, *, claim: Any = None, **changes: Any) -> AttemptRef:
    """A new call that was let through."""
    ref = tried(ledger, ledger.queued(content, **changes), **(claim or {}))
    assert isinstance(ref, AttemptRef)
    return ref


def waits(ledger: LedgerUnderTest, content: str, *, claim: Any = None, **changes: Any) -> CallKey:
    """A new call that was not let through, and waits."""
    key = ledger.queued(content, **changes)
    refused = tried(ledger, key, **(claim or {}))
    assert isinstance(refused, Refused)
    assert (refused.state, refused.refusal) == (CallState.WAITING, None)
    return key


def count_sent(
    ledger: LedgerUnderTest, name: str, most: int, org_id: str = ORG, **changes: Any
) -> int:
    """Submit new calls until one is not let through. Return how many were."""
    for n in range(most):
        if isinstance(
            tried(ledger, ledger.queued(f"{name} {n}", org_id=org_id), **changes), Refused
        ):
            return n
    return most


def succeeds(ledger: LedgerUnderTest, ref: AttemptRef, **changes: Any) -> Settled:
    """Record and settle a success."""
    ledger.record(an_answer(ref))
    return ledger.settle(a_success(ref, 1, health=Health.ALIVE, **changes))[0]


def is_limited(ledger: LedgerUnderTest, ref: AttemptRef, retry_after_s: float = 0.0) -> Settled:
    """Record and settle a refusal for the provider's rate."""
    ledger.record(an_answer(ref, reply=None, error="{}"))
    return ledger.settle(
        a_failure(
            ref,
            CallState.WAITING,
            due_in_s=3_600.0,
            health=Health.LIMITED,
            failure_code="rate_limited",
            blocked_for_s=retry_after_s,
        )
    )[0]


def released(ledger: LedgerUnderTest) -> list[CallKey]:
    """The calls that the due query publishes now."""
    return [due.key for due in ledger.due(expire=False)]


def learn(ledger: LedgerUnderTest, amount: int, remaining: int | None = None) -> None:
    """Hear from the provider how many requests a day it takes."""
    limit = LearnedLimit(Measure.REQUESTS, DAY_S, amount, remaining)
    ledger.flow.learn([Learned("openai", MODEL, "", limit)])


def prove(ledger: LedgerUnderTest, model: str = MODEL, credential: str = "") -> None:
    """Let the provider have answered just now, so that its breaker lets any number through."""
    ledger.operations.set_breaker("openai", model, credential, is_open=False, by=BY)
