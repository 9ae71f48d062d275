"""What pages show at one glance, and the pages of the action log, on both ledgers."""

from __future__ import annotations

from uuid import uuid4

from callgate.domain.budgets import Window
from callgate.domain.calls import CallKey, CallState
from callgate.domain.overview import ActionFilter, ProviderHealth
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from tests.support.ledger_under_test import (
    LIMIT,
    ORG,
    LedgerUnderTest,
    a_submission,
    a_success,
    an_answer,
)

HOUR_S = 3_600.0
BY = By("ann", "invoice 7")
OTHER = By("bob", "they asked")
EVERYTHING = ActionFilter()


def test_a_glance_shows_what_died_and_what_is_held(ledger: LedgerUnderTest) -> None:
    """Dead calls of the last hour, holds of attempts under way, and the daily limits of organisations only."""
    ledger.dead("one")
    ledger.succeeded("two", posted_nano_usd=60)
    ledger.running("three", 100)
    ledger.set_budget(5_000, window=Window.MONTH)

    seen = ledger.overview.glance(dead_s=HOUR_S, rows_max=100)

    assert (seen.dead, seen.held_nano_usd) == (1, 100)
    assert (seen.day_budgets, seen.day_limit_nano_usd) == (1, LIMIT)
    assert (seen.day_held_nano_usd, seen.day_spent_nano_usd) == (100, 60)


def test_what_is_counted_has_a_bound(ledger: LedgerUnderTest) -> None:
    for n in range(3):
        ledger.dead(f"dead {n}")

    assert ledger.overview.glance(dead_s=HOUR_S, rows_max=2).dead == 2


def test_a_discarded_call_is_not_dead_any_more(ledger: LedgerUnderTest) -> None:
    assert ledger.overview.glance(dead_s=HOUR_S, rows_max=9).dead == 0
    ledger.dead("one")

    assert ledger.overview.glance(dead_s=HOUR_S, rows_max=9).dead == 1


def test_health_counts_the_newest_attempts_of_each_model(ledger: LedgerUnderTest) -> None:
    """By outcome, with the times of replies; an attempt under way is counted and has not ended."""
    for n, latency_ms in enumerate((10, 20, 30, 400)):
        ref = ledger.running(f"timed {n}")
        ledger.record(an_answer(ref, latency_ms=latency_ms))
        ledger.settle(a_success(ref))
    ledger.dead("failed")
    ledger.lost("lost")
    ledger.running("under way")

    (health,) = ledger.overview.provider_health(age_s=HOUR_S, attempts_max=100)

    assert health == ProviderHealth("openai", "gpt-4o-mini", 7, 4, 1, 1, 30, 400)
    assert (health.ended, health.success_share) == (6, 4 / 6)
    (newest,) = ledger.overview.provider_health(age_s=HOUR_S, attempts_max=1)
    assert (newest.attempts, newest.ended, newest.success_share) == (1, 0, None)


def test_models_are_listed_by_their_attempts(ledger: LedgerUnderTest) -> None:
    ledger.succeeded("one", model="rare")
    ledger.succeeded("two", model="usual")
    ledger.succeeded("three", model="usual")

    seen = ledger.overview.provider_health(age_s=HOUR_S, attempts_max=100)

    assert [(h.model, h.attempts) for h in seen] == [("usual", 2), ("rare", 1)]


def test_the_action_log_is_read_in_pages(ledger: LedgerUnderTest) -> None:
    """Newest first, each action once, also if one is added between two pages."""
    for n in range(5):
        ledger.overview.note(None, by=By("ann", f"note {n}"))
    first = ledger.overview.actions_page(EVERYTHING, limit=2)
    ledger.overview.note(None, by=By("ann", "added meanwhile"))
    second = ledger.overview.actions_page(EVERYTHING, before=first[-1].number, limit=3)

    reasons = [a.done.by.reason for a in (*first, *second)]
    assert reasons == [f"note {n}" for n in (4, 3, 2, 1, 0)]


def test_the_action_log_is_filtered(ledger: LedgerUnderTest) -> None:
    """By who, whom and what; all that are given narrow."""
    ledger.overview.note(ORG, by=BY)
    ledger.overview.note(None, by=OTHER)
    ledger.operations.pause(PauseKey(org_id=ORG), by=OTHER)

    def found(which: ActionFilter) -> list[tuple[str, str | None, str]]:
        page = ledger.overview.actions_page(which, limit=9)
        return [(a.done.by.operator, a.done.org_id, a.done.action) for a in page]

    assert found(ActionFilter(operator="ann")) == [("ann", ORG, "note")]
    assert found(ActionFilter(org_id=ORG)) == [("bob", ORG, "pause"), ("ann", ORG, "note")]
    assert found(ActionFilter(operator="bob", org_id=ORG)) == [("bob", ORG, "pause")]
    assert found(ActionFilter(action="note", operator="bob")) == [("bob", None, "note")]
    assert found(ActionFilter(operator="' OR true --")) == []


def test_a_note_says_who_and_what(ledger: LedgerUnderTest) -> None:
    ledger.submit(a_submission())
    ledger.overview.note(None, by=BY)

    (logged, *_) = ledger.overview.actions_page(EVERYTHING, limit=1)
    assert (logged.done.by, logged.done.subject, logged.done.detail) == (BY, "everybody", {})
    assert logged.login


def test_states_of_calls_that_exist(ledger: LedgerUnderTest) -> None:
    dead, queued = ledger.dead("one"), ledger.queued("two")
    unknown = CallKey(uuid4(), 1)

    seen = ledger.overview.states([dead.key, unknown, queued])

    assert seen == {dead.key: CallState.DEAD, queued: CallState.QUEUED}
    assert ledger.overview.states([]) == {}
