"""Each wait ends: those for a provider, a place, held money and the end of a pause count together."""

from __future__ import annotations

from datetime import timedelta

import pytest

from callgate.domain.budgets import PERIOD_WAIT_MAX
from callgate.domain.call_order import BACKLOG_WAIT, Priority
from callgate.domain.calls import AttemptRef, CallKey, CallState, WaitReason
from callgate.domain.ledger import Refused, Requeue
from callgate.domain.limits import DAY_S
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.domain.requests import OnBudget
from tests.contract.concurrency_steps import allow
from tests.contract.flow_steps import a_rule, declare, released, sent, tried, waits
from tests.support.ledger_under_test import (
    LIMIT,
    LedgerUnderTest,
    a_failure,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)

BY = By("ann", "it is slow")
WAIT_MAX_S = 60.0


def refused(ledger: LedgerUnderTest, key: CallKey, hold: int = 100) -> Refused:
    """Try a call that may wait for a minute."""
    (outcome,) = ledger.reserve(a_reserve(key, hold, wait_max_s=WAIT_MAX_S))
    assert isinstance(outcome, Refused)
    return outcome


def until_due_s(ledger: LedgerUnderTest, key: CallKey) -> float:
    """How long a call waits until it is due."""
    due_at = ledger.view(key).due_at
    assert due_at is not None
    return (due_at - ledger.now()).total_seconds()


def end_reason(ledger: LedgerUnderTest, key: CallKey) -> tuple[CallState, str | None]:
    """How a call ended."""
    view = ledger.view(key)
    return view.state, view.end_reason


def test_a_wait_for_held_money_ends(ledger: LedgerUnderTest) -> None:
    """It is tried again now and then, and at the end of its wait for the last time."""
    ledger.running("held", LIMIT)
    key = ledger.queued("waits")
    tries = 0
    while refused(ledger, key).state is CallState.WAITING:
        tries += 1
        wait_s = until_due_s(ledger, key)
        assert 0 < wait_s <= 30
        ledger.age(wait_s + 0.1)
        ledger.requeued(key)
        assert tries < 50

    assert end_reason(ledger, key) == (CallState.REJECTED, "budget_held")
    created_at = ledger.view(key).created_at
    assert timedelta(seconds=60) <= ledger.now() - created_at < timedelta(seconds=70)
    assert ledger.figures() == (LIMIT, 0)


def test_money_that_is_freed_at_the_end_of_a_wait_is_used(ledger: LedgerUnderTest) -> None:
    """The wait has ended only for a call that is refused."""
    held = ledger.running("held", LIMIT)
    ledger.record(an_answer(held))
    key = ledger.queued("waits")
    refused(ledger, key)
    ledger.age(WAIT_MAX_S + 1)
    ledger.requeued(key)
    ledger.settle(a_success(held, 1))

    ledger.claim(key)


@pytest.mark.parametrize("between", ["nothing", "a lock"])
def test_waits_count_together(ledger: LedgerUnderTest, between: str) -> None:
    """Half the time for held money, half of it paused; a short wait in between changes nothing."""
    ledger.running("held", LIMIT)
    key = ledger.queued("waits")
    refused(ledger, key)
    ledger.age(31)
    ledger.requeued(key)
    if between == "a lock":
        ledger.reserve(Requeue(key, '{"code": "locked"}'))
        ledger.requeued(key)
    ledger.operations.pause(PauseKey(), by=BY)
    refused(ledger, key)
    assert until_due_s(ledger, key) <= 30
    ledger.age(30)
    ledger.requeued(key)
    refused(ledger, key)

    assert end_reason(ledger, key) == (CallState.REJECTED, "paused")


def test_a_pause_before_does_not_lengthen_the_wait_for_money(ledger: LedgerUnderTest) -> None:
    """The other way round."""
    ledger.running("held", LIMIT)
    key = ledger.queued("waits")
    ledger.operations.pause(PauseKey(), by=BY)
    refused(ledger, key)
    ledger.age(WAIT_MAX_S / 2)
    ledger.operations.resume(PauseKey(), by=BY)
    ledger.requeued(key)
    refused(ledger, key)
    assert ledger.view(key).wait_reason is WaitReason.BUDGET_HELD
    ledger.age(WAIT_MAX_S / 2 + 1)
    ledger.requeued(key)
    refused(ledger, key)

    assert end_reason(ledger, key) == (CallState.REJECTED, "budget_held")


def test_waiting_for_periods_ends_too(ledger: LedgerUnderTest) -> None:
    """Each period tries again, but a call is not older than two months when it begins to wait for the next one."""
    ledger.succeeded("spent", posted_nano_usd=950)
    key = ledger.queued("waits")
    for n, age_s in enumerate((0.0, PERIOD_WAIT_MAX.total_seconds())):
        assert _wait_for_period(ledger, key).state is CallState.WAITING
        ledger.age(max(age_s, until_due_s(ledger, key) + 1))
        ledger.succeeded(f"spent {n}", posted_nano_usd=950)
        ledger.requeued(key)
    outcome = _wait_for_period(ledger, key)

    assert outcome.refusal is not None
    assert end_reason(ledger, key) == (CallState.REJECTED, "budget_exhausted")


def test_a_wait_for_a_period_is_not_counted_with_the_others(ledger: LedgerUnderTest) -> None:
    """The caller has asked for it, and it may be longer: the other waits begin again."""
    ledger.succeeded("spent", posted_nano_usd=950)
    key = ledger.queued("waits")
    ledger.operations.pause(PauseKey(), by=BY)
    refused(ledger, key)
    ledger.operations.resume(PauseKey(), by=BY)
    ledger.requeued(key)
    _wait_for_period(ledger, key)
    ledger.age(until_due_s(ledger, key) + 1)
    ledger.requeued(key)
    ledger.operations.pause(PauseKey(), by=BY)

    assert refused(ledger, key).state is CallState.WAITING


@pytest.mark.parametrize("waits_for", ["a limit", "a place", "a pause", "money"])
@pytest.mark.parametrize("later_s", [500.0, None])
def test_a_later_deadline_moves_the_end_of_a_wait(
    ledger: LedgerUnderTest, waits_for: str, later_s: float | None
) -> None:
    """None is later than any. A call that waits for something is not published for the deadline that it had."""
    match waits_for:
        case "a limit":
            declare(ledger, a_rule(2))
            sent(ledger, "first")
        case "a place":
            allow(ledger, {"": 1})
            sent(ledger, "first")
        case "a pause":
            ledger.operations.pause(PauseKey(), by=BY)
        case _:
            ledger.running("held", LIMIT)
    key = waits(ledger, "joined", start_within_s=10.0) if waits_for != "money" else None
    if key is None:
        key = ledger.queued("joined", start_within_s=10.0)
        ledger.reserve(a_reserve(key, 1))
    assert until_due_s(ledger, key) <= 10
    (joined,) = ledger.submit(a_submission("joined", start_within_s=later_s))
    assert joined.key == key

    if waits_for == "money":
        # It is looked at often anyway.
        assert until_due_s(ledger, key) <= 10
    else:
        expected_s = later_s or 30 * DAY_S
        assert abs(until_due_s(ledger, key) - expected_s) < 5
        ledger.age(11)
        assert released(ledger) == []


def test_a_call_that_runs_is_raised_for_its_next_attempt(ledger: LedgerUnderTest) -> None:
    """Somebody joined it who has no deadline: the first one's deadline does not end it when it is tried again."""
    ref = sent(ledger, "joined", start_within_s=10.0)
    ledger.submit(a_submission("joined", priority=Priority.INTERACTIVE))
    ledger.record(an_answer(ref, reply=None, error="{}"))
    ledger.settle(a_failure(ref, CallState.WAITING, due_in_s=20.0))
    assert until_due_s(ledger, ref.key) > 15
    ledger.age(21)

    assert ledger.view(ref.key).priority is Priority.INTERACTIVE
    assert isinstance(tried(ledger, ledger.requeued(ref.key)), AttemptRef)


def test_a_later_deadline_moves_the_end_of_the_backlog(ledger: LedgerUnderTest) -> None:
    """A call of the backlog waits for its turn, a day at most."""
    for start in range(0, 2_000, 500):
        ledger.submit(*[a_submission(f"flood {start + n}", org_id="bolt") for n in range(500)])
    late = a_submission("late", org_id="bolt", start_within_s=10.0)
    (submitted,) = ledger.submit(late)
    assert ledger.view(submitted.key).wait_reason is WaitReason.BACKLOG
    assert until_due_s(ledger, submitted.key) <= 10
    ledger.submit(a_submission("late", org_id="bolt"))

    assert abs(until_due_s(ledger, submitted.key) - BACKLOG_WAIT.total_seconds()) < 5


def _wait_for_period(ledger: LedgerUnderTest, key: CallKey) -> Refused:
    (outcome,) = ledger.reserve(a_reserve(key, 100, on_budget=OnBudget.WAIT, wait_max_s=WAIT_MAX_S))
    assert isinstance(outcome, Refused)
    return outcome
