"""Places of an organisation beside a limit of its provider: two lines, and calls that go through both."""

from __future__ import annotations

from collections import Counter

import pytest

from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.concurrency import CallsOf, ConcurrencyRule
from callgate.domain.flow import MINUTE_S, Declaration, LimitRule, Measure
from tests.contract.flow_steps import WORKER, released, succeeds, tried
from tests.support.ledger_under_test import ORG, LedgerUnderTest

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
    sent: Counter[str] = Counter()
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
                sent[ledger.view(key).org_id] += 1
        queue = []
        ledger.age(TICK_S)
    return sent


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
    sent = live(ledger, queue, 120)

    assert sent[ORG] >= 0.6 * sent[OTHER]
