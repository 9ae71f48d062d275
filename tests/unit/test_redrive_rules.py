"""The rules of redrives by properties: pace, cap on money, when one stops by itself, and what a plan forecasts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.calls import CallKey, CallState
from callgate.domain.pauses import PauseKey
from callgate.domain.redrive_forecast import Circumstances, forecast
from callgate.domain.redrive_rules import (
    fails_too_often,
    fits_cap,
    free_after,
    may_release,
    selection_json,
    submission_id_of,
    sums_by_org,
)
from callgate.domain.redrives import (
    CATCH_UP_S,
    OPEN_CALLS_MAX,
    STEP_CALLS_MAX,
    NewRedrive,
    RedriveCall,
    RedriveOutcome,
    RedriveTerms,
)
from callgate.domain.reports import By, CallFilter

ANN = By("ann", "why")
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
RATES = st.floats(min_value=0.1, max_value=60_000)
SECONDS = st.lists(st.floats(min_value=0, max_value=30), min_size=1, max_size=60)


@given(RATES, SECONDS)
def test_a_rate_is_never_exceeded(rate: float, pauses: list[float]) -> None:
    """However often and whenever a worker looks: what it may catch up and one call more, at most."""
    now, free_at, released = NOW, None, 0
    for pause_s in pauses:
        now += timedelta(seconds=pause_s)
        count = may_release(rate, free_at, now, open_calls=0)
        free_at = free_after(rate, free_at, now, released=count)
        released += count
        passed_s = (now - NOW).total_seconds()
        assert released <= (passed_s + CATCH_UP_S) * rate / 60 + 1 + 1e-6


@given(st.floats(min_value=0.1, max_value=20_000), st.integers(min_value=1, max_value=50))
def test_a_rate_is_reached_by_who_looks_often(rate: float, seconds: int) -> None:
    now, free_at, released = NOW, None, 0
    for _ in range(seconds * 4):
        count = may_release(rate, free_at, now, open_calls=0)
        free_at = free_after(rate, free_at, now, released=count)
        released += count
        now += timedelta(seconds=0.25)
    # The last look was a quarter of a second before.
    expected = min((seconds - 0.25) * rate / 60, seconds * 4 * STEP_CALLS_MAX)
    assert released >= int(expected * 0.98) - 1


@given(st.integers(min_value=0, max_value=2 * OPEN_CALLS_MAX), st.none() | RATES)
def test_no_more_are_open_than_may_be(open_calls: int, rate: float | None) -> None:
    room = may_release(rate, None, NOW, open_calls=open_calls)

    assert 0 <= room <= STEP_CALLS_MAX
    assert room == 0 or open_calls + room <= OPEN_CALLS_MAX


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_an_exact_fit_passes_the_cap(committed: int, worst: int) -> None:
    assert fits_cap(committed + worst, committed, worst)
    assert fits_cap(None, committed, worst)
    assert not fits_cap(committed + worst - 1, committed, worst)


@given(st.floats(0.01, 1), st.integers(1, 50), st.integers(0, 50), st.integers(0, 50))
def test_it_stops_only_when_enough_have_failed(
    share: float, least: int, good: int, bad: int
) -> None:
    stops = fails_too_often(
        RedriveTerms(None, None, share, least), ended=good + bad, failed_again=bad
    )

    assert not stops or (good + bad >= least and bad >= share * (good + bad))
    assert not fails_too_often(RedriveTerms(), ended=good, failed_again=0)
    assert fails_too_often(RedriveTerms(None, None, share, 1), ended=bad + 1, failed_again=bad + 1)


def test_a_submission_follows_from_redrive_and_call() -> None:
    """So the ledger knows a release that is repeated."""
    one, two = UUID(int=1), UUID(int=2)

    assert submission_id_of(one, CallKey(two, 1)) == submission_id_of(one, CallKey(two, 1))
    ids = {
        submission_id_of(r, CallKey(c, g)) for r in (one, two) for c in (one, two) for g in (1, 2)
    }
    assert len(ids) == 8


@pytest.mark.parametrize(
    "terms",
    [
        {"rate_per_min": 0.0},
        {"rate_per_min": float("nan")},
        {"cap_nano_usd": -1},
        {"stop_share": 0.0},
        {"stop_share": 1.5},
        {"stop_min": 0},
    ],
)
def test_terms_that_cannot_be_are_refused(terms: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"a (rate|cap|redrive)"):
        RedriveTerms(**terms)  # type: ignore[arg-type]


def test_only_dead_and_refused_calls_are_redriven() -> None:
    for state in (None, *CallState):
        if state in (CallState.DEAD, CallState.REJECTED):
            continue
        with pytest.raises(ValueError, match="dead or refused"):
            NewRedrive(UUID(int=1), CallFilter(state=state), ANN)
    with pytest.raises(ValueError, match="1 to 10000"):
        NewRedrive(UUID(int=1), CallFilter(state=CallState.DEAD), ANN, 10_001)


def test_a_selection_is_stored_as_it_was_given() -> None:
    which = CallFilter("acme", CallState.DEAD, since=NOW, call_ids=(UUID(int=1),))

    assert selection_json(which) == {
        "org_id": "acme",
        "state": "dead",
        "call_ids": [str(UUID(int=1))],
        "since": NOW.isoformat(),
    }


# The forecast.


def a_call(number: int, worst: int = 100, **fields: object) -> RedriveCall:
    """A pending call of acme."""
    call = RedriveCall(
        number, CallKey(UUID(int=number), 1), "acme", "chat", "sim", "sim-1",
        RedriveOutcome.PENDING, worst_case_nano_usd=worst,
    )  # fmt: skip
    return replace(call, **fields)  # type: ignore[arg-type]


def a_budget(limit: int, spent: int = 0, reserved: int = 0, **fields: object) -> BudgetFigures:
    """The day's budget of acme."""
    day = timedelta(hours=12)
    budget = BudgetFigures(
        1, "acme", "org", Window.DAY, "UTC", NOW - day, NOW + day, limit, reserved, spent
    )
    return replace(budget, **fields)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 100), max_size=30), st.integers(0, 1_500), st.integers(0, 500))
def test_what_passes_never_holds_more_than_the_budget_has(
    holds: list[int], limit: int, spent: int
) -> None:
    calls = [a_call(n, hold) for n, hold in enumerate(holds, start=1)]
    seen = forecast(calls, Circumstances(NOW, [a_budget(limit, spent)]))
    left, passed = limit - spent, 0
    for hold in holds:
        if hold <= left:
            left, passed = left - hold, passed + 1

    assert len(holds) - seen.refused_calls - seen.waiting_calls == passed


def test_a_forecast_names_each_reason_once() -> None:
    calls = [
        a_call(1),
        a_call(2, call_type="paused"),
        a_call(3, org_id="nova"),
        a_call(4, org_id="frozen"),
        a_call(5, worst=5_000),
        a_call(6, worst=900),
        a_call(7, outcome=RedriveOutcome.REFUSED),
    ]
    seen = forecast(
        calls,
        Circumstances(
            NOW,
            [a_budget(1_000, 50)],
            pauses=[PauseKey(call_type="paused"), PauseKey(org_id="frozen", is_freeze=True)],
        ),
    )

    assert seen.refused == {
        "budget_not_configured": 1,
        "organisation_frozen": 1,
        "budget_too_small": 1,
    }
    assert seen.waiting == {"paused": 1, "budget_held": 1}


def test_a_period_that_has_ended_is_followed_by_an_unused_one() -> None:
    """`callgate budgets list` shows the newest period; the next begins with the first call."""
    over = a_budget(100, spent=100, starts_at=NOW - timedelta(days=2), ends_at=NOW)

    seen = forecast([a_call(1), a_call(2)], Circumstances(NOW, [over]))

    assert (seen.refused, seen.waiting) == ({}, {"budget_held": 1})


def test_sums_by_organisation_put_the_most_expensive_first() -> None:
    calls = [
        a_call(1, worst=1),
        a_call(2, org_id="nova", worst=7, has_unknown_bill=True),
        a_call(3, outcome=RedriveOutcome.SUCCEEDED, posted_nano_usd=5),
    ]

    nova, acme = sums_by_org(calls)

    assert (nova.org_id, nova.worst_case_nano_usd, nova.unknown) == ("nova", 7, 1)
    assert (acme.calls, acme.pending, acme.worst_case_nano_usd, acme.posted_nano_usd) == (
        2,
        1,
        1,
        5,
    )
