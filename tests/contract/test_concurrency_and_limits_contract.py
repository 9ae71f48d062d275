"""Places of an organisation beside a limit of its provider: two lines, and calls that go through both."""

from __future__ import annotations

from collections import Counter

import pytest

from callgate.domain.calls import AttemptRef, CallKey, WaitReason
from callgate.domain.concurrency import CallsOf, ConcurrencyRule
from callgate.domain.ledger import Refused
from callgate.domain.limits import DAY_S, MINUTE_S, Declaration, LimitRule, Measure
from tests.contract.concurrency_steps import in_line
from tests.contract.flow_steps import (
    WORKER,
    a_rule,
    count_sent,
    prove,
    released,
    sent,
    succeeds,
    tried,
    waits,
)
from tests.support.ledger_under_test import ORG, LedgerUnderTest

pytestmark = pytest.mark.long
OTHER = "bolt"
A_MINUTE = 600
PLACES = 5
TICK_S = 0.1
RUNS_TICKS = 3
DUE_EACH_TICKS = 5


def declare(ledger: LedgerUnderTest, rule: ConcurrencyRule) -> None:
    """Limit the requests of each model, and the calls that run at a time."""
    limit = LimitRule("openai", "*", "", False, Measure.REQUESTS, MINUTE_S, A_MINUTE, False)
    ledger.flow.publish(WORKER, Declaration((limit,), concurrency=(rule,)))


def live(ledger: LedgerUnderTest, queue: list[CallKey], ticks: int) -> Counter[str]:
    """Claim what is published, in steps of 0.1 s; the due query comes each half second. Return calls by owner."""
    ends: dict[AttemptRef, int] = {}
    taken: Counter[str] = Counter()
    for tick in range(ticks):
        due = [ref for ref, at in ends.items() if at <= tick]
        settled = [succeeds(ledger, ref) for ref in due]
        has_freed = any(each.has_freed_waiters for each in settled)
        ends = {ref: at for ref, at in ends.items() if at > tick}
        if has_freed or tick % DUE_EACH_TICKS == 0:
            queue = [*queue, *released(ledger)]
        for key in queue:
            outcome = tried(ledger, key)
            if isinstance(outcome, AttemptRef):
                ends[outcome] = tick + RUNS_TICKS
                taken[ledger.view(key).org_id] += 1
        queue = []
        ledger.age(TICK_S)
    return taken


@pytest.mark.parametrize(
    "rule",
    [
        ConcurrencyRule(CallsOf.ORGANISATION, ORG, PLACES),
        ConcurrencyRule(CallsOf.CALL_TYPE, "extraction", PLACES),
    ],
    ids=["organisation", "call type"],
)
def test_neither_line_stops_the_other(ledger: LedgerUnderTest, rule: ConcurrencyRule) -> None:
    """Ten a second fit into the limit; five places of 0.3 s are enough for that."""
    ledger.set_budget(1_000_000)
    declare(ledger, rule)
    queue = [ledger.queued(f"{n}") for n in range(100)]

    assert live(ledger, queue, 300) == {ORG: 100}


def test_an_organisation_with_few_places_keeps_its_share(ledger: LedgerUnderTest) -> None:
    """Its places are enough for half of the limit."""
    for org_id in (ORG, OTHER):
        ledger.set_budget(1_000_000, org_id=org_id)
    declare(ledger, ConcurrencyRule(CallsOf.ORGANISATION, ORG, PLACES))
    queue = [ledger.queued(f"{n}", org_id=org_id) for n in range(80) for org_id in (ORG, OTHER)]
    taken = live(ledger, queue, 120)

    assert taken[ORG] >= 0.6 * taken[OTHER]


def test_a_call_woken_for_a_place_does_not_pass_those_that_wait_for_the_key(
    ledger: LedgerUnderTest,
) -> None:
    """Else an organisation with few places would pass all others at the limit."""
    for org_id in (ORG, OTHER):
        ledger.set_budget(1_000_000, org_id=org_id)
    places = ConcurrencyRule(CallsOf.ORGANISATION, ORG, 1)
    ledger.flow.publish(WORKER, Declaration((a_rule(6),), concurrency=(places,)))
    running = sent(ledger, "a")
    (woken,) = in_line(ledger, "b")
    count_sent(ledger, "burst", 2, org_id=OTHER)
    waiting = waits(ledger, "c", org_id=OTHER)
    ledger.age(DAY_S / 4 + 10)
    prove(ledger)
    succeeds(ledger, running)
    assert {*released(ledger)} == {woken, waiting}

    assert isinstance(tried(ledger, woken), Refused)
    assert ledger.view(woken).wait_reason is WaitReason.RATE_LIMITED
    assert isinstance(tried(ledger, waiting), AttemptRef)
