"""The rules of money that need no database: admission, periods, rounding, waiting."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.budgets import (
    BudgetFigures,
    BudgetRefusal,
    RefusalReason,
    Window,
    admit,
    cost_nano_usd,
    held_wait_s,
    hold_nano_usd,
    nano_usd_of,
    period_of,
    refusal_of,
    scopes_of,
    usd,
)

AMOUNTS = st.integers(0, 10**12)
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]


def a_budget(limit: int = 100, reserved: int = 0, spent: int = 0, **changes: Any) -> BudgetFigures:
    """A day of acme's money."""
    fields: dict[str, Any] = {
        "budget_id": 1,
        "org_id": "acme",
        "scope": "org",
        "window": Window.DAY,
        "timezone": "UTC",
        "starts_at": datetime(2026, 11, 18, tzinfo=UTC),
        "ends_at": datetime(2026, 11, 19, tzinfo=UTC),
    }
    return BudgetFigures(
        **{**fields, **changes},
        limit_nano_usd=limit,
        reserved_nano_usd=reserved,
        spent_nano_usd=spent,
    )


# Admission.


@pytest.mark.parametrize(
    ("hold", "reason"),
    [
        (30, None),
        (31, RefusalReason.HELD),
        (50, RefusalReason.HELD),
        (51, RefusalReason.EXHAUSTED),
        (100, RefusalReason.EXHAUSTED),
        (101, RefusalReason.TOO_SMALL),
    ],
)
def test_a_hold_is_refused_for_the_reason_that_would_have_to_change(
    hold: int, reason: RefusalReason | None
) -> None:
    """An exact fit passes; others' holds may come back, spent money not in this period, a limit never by itself."""
    budget = a_budget(limit=100, reserved=20, spent=50)

    assert refusal_of(budget, hold, NOON) is reason


@given(limit=AMOUNTS, reserved=AMOUNTS, spent=AMOUNTS, hold=AMOUNTS)
def test_admission_is_the_inequality(limit: int, reserved: int, spent: int, hold: int) -> None:
    """spent + reserved + hold <= limit, whatever the figures are, over the limit too."""
    budget = a_budget(limit, reserved, spent)

    assert (admit([budget], "acme", hold, NOON) is None) == (spent + reserved + hold <= limit)


def test_an_exact_fit_passes_and_one_nano_more_does_not() -> None:
    """The refusal carries the figures it was decided by."""
    budget = a_budget(limit=100, reserved=20, spent=50)

    assert admit([budget], "acme", 30, NOON) is None
    assert admit([budget], "acme", 31, NOON) == BudgetRefusal(
        RefusalReason.HELD, "acme", "org", Window.DAY, 100, 50, 20, 31
    )


def test_a_period_that_has_ended_refuses_everything() -> None:
    """It could not be rolled over: nobody knows how much of it is left of a day that never began."""
    ended = a_budget(limit=100, ends_at=NOON)

    assert refusal_of(ended, 0, NOON) is RefusalReason.NO_PERIOD
    refusal = admit([a_budget(limit=1), ended], "acme", 50, NOON)
    assert refusal is not None
    assert refusal.reason is RefusalReason.NO_PERIOD
    assert "--timezone UTC" in str(refusal)


@pytest.mark.parametrize(
    ("scope", "command"),
    [
        ("org", "callgate budgets set 'a b' --timezone UTC"),
        ("call_type:x", "callgate budgets set 'a b' --call-type x --timezone UTC"),
    ],
)
def test_what_has_no_period_names_the_command_that_mends_it(scope: str, command: str) -> None:
    """Of this very budget: another scope of the organisation is another one."""
    refusal = BudgetRefusal(RefusalReason.NO_PERIOD, "a b", scope, Window.DAY, 1, 0, 0, 1)

    assert f"`{command}`" in str(refusal)


def test_the_least_hopeful_refusal_is_told() -> None:
    """Of several scopes the one that waiting helps least; of two alike the one of the lower id."""
    held = a_budget(limit=100, reserved=100, budget_id=1)
    exhausted = a_budget(limit=100, spent=100, budget_id=4, scope="call_type:a")
    also_exhausted = a_budget(limit=100, spent=100, budget_id=3, scope="call_type:b")
    never = a_budget(limit=1, budget_id=9, scope="call_type:c")

    def told(*budgets: BudgetFigures) -> tuple[RefusalReason, str] | None:
        refusal = admit(budgets, "acme", 10, NOON)
        return (refusal.reason, refusal.scope) if refusal else None

    assert told(a_budget(), held) == (RefusalReason.HELD, "org")
    assert told(held, exhausted) == (RefusalReason.EXHAUSTED, "call_type:a")
    assert told(exhausted, also_exhausted) == (RefusalReason.EXHAUSTED, "call_type:b")
    assert told(exhausted, never, held) == (RefusalReason.TOO_SMALL, "call_type:c")
    assert told(a_budget(), a_budget()) is None


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS, AMOUNTS), min_size=1, max_size=4), AMOUNTS)
def test_all_scopes_must_have_room(figures: list[tuple[int, int, int]], hold: int) -> None:
    """Admitted together exactly if admitted by each alone, in any order."""
    budgets = [a_budget(*f, budget_id=i) for i, f in enumerate(figures)]

    together = admit(budgets, "acme", hold, NOON)

    assert (together is None) == all(admit([b], "acme", hold, NOON) is None for b in budgets)
    assert admit(budgets[::-1], "acme", hold, NOON) == together


def test_a_call_is_limited_by_its_organisation_and_its_type() -> None:
    """Two scopes; a budget exists where an operator set one."""
    assert scopes_of("extraction") == ("org", "call_type:extraction")


# Refusals as text.


@pytest.mark.parametrize("window", [Window.DAY, None])
@pytest.mark.parametrize("reason", RefusalReason)
def test_a_refusal_is_stored_and_read_back(reason: RefusalReason, window: Window | None) -> None:
    """As JSON with a code that may be alerted on and a message with all the numbers."""
    refusal = BudgetRefusal(reason, "acme", "org", window, 100, 50, 20, 31)

    stored = json.loads(refusal.to_json())

    assert BudgetRefusal.from_json(refusal.to_json()) == refusal
    assert stored["code"] == f"budget_{reason.value}"
    assert stored["message"] == str(refusal)


def test_a_refusal_says_what_it_refused() -> None:
    """Organisation, scope, window, and every amount in dollars."""
    refusal = BudgetRefusal(
        RefusalReason.HELD, "acme", "org", Window.DAY, 1_000_000, 2_000, 3_000, 998_001
    )

    assert str(refusal) == (
        "org 'acme', scope 'org' per day: held: requested $0.000998001 with limit $0.001000, "
        "spent $0.000002, reserved $0.000003"
    )


def test_a_missing_budget_says_what_to_do() -> None:
    """There are no figures to show."""
    refusal = BudgetRefusal(RefusalReason.NO_BUDGET, "acme", "org", None, 0, 0, 0, 31)

    assert (
        str(refusal)
        == "no budget of org 'acme' covers this call; set one with `callgate budgets set`"
    )


# Periods.


@pytest.mark.parametrize(
    ("at", "window", "timezone", "starts_at", "ends_at"),
    [
        ("2026-11-18T12:00Z", Window.DAY, "UTC", "2026-11-18T00:00Z", "2026-11-19T00:00Z"),
        ("2026-11-18T00:00Z", Window.DAY, "UTC", "2026-11-18T00:00Z", "2026-11-19T00:00Z"),
        ("2026-11-17T23:59Z", Window.DAY, "UTC", "2026-11-17T00:00Z", "2026-11-18T00:00Z"),
        # Another day there already.
        ("2026-11-18T20:00Z", Window.DAY, "Asia/Kolkata", "2026-11-18T18:30Z", "2026-11-19T18:30Z"),
        # Clocks go forward: 23 hours; and back: 25.
        (
            "2026-03-29T12:00Z",
            Window.DAY,
            "Europe/Berlin",
            "2026-03-28T23:00Z",
            "2026-03-29T22:00Z",
        ),
        (
            "2026-10-25T12:00Z",
            Window.DAY,
            "Europe/Berlin",
            "2026-10-24T22:00Z",
            "2026-10-25T23:00Z",
        ),
        # Both of the hours that the clock shows twice belong to the same day.
        (
            "2026-10-25T00:30Z",
            Window.DAY,
            "Europe/Berlin",
            "2026-10-24T22:00Z",
            "2026-10-25T23:00Z",
        ),
        (
            "2026-10-25T01:30Z",
            Window.DAY,
            "Europe/Berlin",
            "2026-10-24T22:00Z",
            "2026-10-25T23:00Z",
        ),
        # A month with a clock change in it begins and ends at local midnights.
        (
            "2026-10-31T22:59Z",
            Window.MONTH,
            "Europe/Berlin",
            "2026-09-30T22:00Z",
            "2026-10-31T23:00Z",
        ),
        (
            "2026-10-31T23:00Z",
            Window.MONTH,
            "Europe/Berlin",
            "2026-10-31T23:00Z",
            "2026-11-30T23:00Z",
        ),
        # The ends of months: the 31st, leap years, the year.
        ("2026-01-31T12:00Z", Window.MONTH, "UTC", "2026-01-01T00:00Z", "2026-02-01T00:00Z"),
        ("2028-02-29T12:00Z", Window.MONTH, "UTC", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        ("2026-12-31T23:59Z", Window.MONTH, "UTC", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        ("2026-12-31T23:59Z", Window.DAY, "UTC", "2026-12-31T00:00Z", "2027-01-01T00:00Z"),
    ],
)
def test_a_period_is_between_local_midnights(
    at: str, window: Window, timezone: str, starts_at: str, ends_at: str
) -> None:
    """In the budget's own time zone, told in UTC."""
    expected = (datetime.fromisoformat(starts_at), datetime.fromisoformat(ends_at))

    assert period_of(datetime.fromisoformat(at), window, timezone) == expected


MOMENTS = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - Hypothesis wants naive bounds and adds the zone itself
    datetime(2090, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@given(at=MOMENTS, window=st.sampled_from(Window), timezone=st.sampled_from(ZONES))
def test_periods_follow_each_other_without_a_gap(
    at: datetime, window: Window, timezone: str
) -> None:
    """Every moment is in exactly one period, and its end is the start of the next."""
    period = starts_at, ends_at = the_period_of(at, window, timezone)

    assert starts_at <= at < ends_at
    assert the_period_of(starts_at, window, timezone) == period
    assert the_period_of(ends_at - timedelta(microseconds=1), window, timezone) == period
    assert the_period_of(ends_at, window, timezone)[0] == ends_at


def the_period_of(at: datetime, window: Window, timezone: str) -> tuple[datetime, datetime]:
    """The period of a zone that exists."""
    period = period_of(at, window, timezone)
    assert period is not None
    return period


@pytest.mark.parametrize(
    "timezone", ["Mars/Olympus", "", "Europe", "/etc/passwd", "../UTC", "a\0b"]
)
def test_a_zone_that_is_none_has_no_periods(timezone: str) -> None:
    """A value, whatever a library makes of the name."""
    assert period_of(NOON, Window.DAY, timezone) is None


@given(at=MOMENTS, timezone=st.sampled_from(ZONES))
def test_a_period_does_not_depend_on_how_its_moment_is_written(at: datetime, timezone: str) -> None:
    """The same moment in another zone is the same moment."""
    elsewhere = at.astimezone(ZoneInfo("Pacific/Auckland"))

    assert period_of(elsewhere, Window.DAY, timezone) == period_of(at, Window.DAY, timezone)


# Rounding.


@pytest.mark.parametrize(
    ("amount_usd", "hold", "cost"),
    [
        ("0", 0, 0),
        ("0.000000001", 1, 1),
        ("0.0000000001", 1, 0),
        ("0.0000000005", 1, 0),
        ("0.0000000015", 2, 2),
        ("0.0000000025", 3, 2),
        ("0.00000000251", 3, 3),
        ("1.5", 1_500_000_000, 1_500_000_000),
        ("9000000.000000001", 9_000_000_000_000_001, 9_000_000_000_000_001),
    ],
)
def test_holds_round_up_and_costs_half_even(amount_usd: str, hold: int, cost: int) -> None:
    """A hold is never below the truth; many small costs do not drift."""
    assert hold_nano_usd(Decimal(amount_usd)) == hold
    assert cost_nano_usd(Decimal(amount_usd)) == cost


@given(st.decimals(0, 1_000_000, allow_nan=False, allow_infinity=False, places=15))
def test_a_hold_is_never_below_its_cost(amount_usd: Decimal) -> None:
    """Of the same amount, and never more than one nano above the truth."""
    nano = amount_usd * 1_000_000_000

    assert nano <= hold_nano_usd(amount_usd) < nano + 1
    assert abs(cost_nano_usd(amount_usd) - nano) <= Decimal("0.5")
    assert cost_nano_usd(amount_usd) <= hold_nano_usd(amount_usd)


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "$0.000000"),
        (1, "$0.000000001"),
        (1_230_000, "$0.001230"),
        (1_230_001, "$0.001230001"),
        (-5_000, "$-0.000005"),
        (12_000_000_000, "$12.000000"),
    ],
)
def test_money_is_shown_without_hiding_any(nano_usd: int, text: str) -> None:
    """Six decimals, or nine where six would lie."""
    assert usd(nano_usd) == text


# Waiting.


@pytest.mark.parametrize(
    ("age_s", "wait_s"), [(0, 0.25), (1, 0.25), (1.2, 0.3), (40, 10), (120, 30), (86_400, 30)]
)
def test_a_held_up_call_waits_a_quarter_of_its_age(age_s: float, wait_s: float) -> None:
    """At least a quarter of a second, so that it does not spin, and at most half a minute."""
    assert held_wait_s(age_s) == pytest.approx(wait_s)


# Amounts that are written out.


@pytest.mark.parametrize(
    ("text", "nano_usd"),
    [
        ("0", 0), ("5", 5 * 10**9), ("0.000000001", 1), ("1.2E-05", 12_000), ("1e3", 10**12), (" 0.5 ", 5 * 10**8),
        ("1.000000000000000", 10**9), ("-0", 0), ("0e-999999999", 0), ("1000000", 10**15), (".5", 5 * 10**8),
    ],
)  # fmt: skip
def test_an_amount_is_read_exactly(text: str, nano_usd: int) -> None:
    """As people write it, and spreadsheets."""
    assert nano_usd_of(text, usd_max=1_000_000) == nano_usd


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "-1",
            "-0.000000001",
            "nan",
            "sNaN",
            "inf",
            "-Infinity",
            "1,5",
            "0x1",
            "1_0",
            "\uff11",
        ),
        *("0.0000000001", "1e-10", "1e-999999", "1E-1999998", "1e999999", "1e999999999999999999"),
        *("1000000.000000001", "1e7", "0.1234567890000000000000000000000001", "9" * 5_000),
    ],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    """Never rounded, never a traceback, never long to read."""
    with pytest.raises(ValueError, match="no amount of USD from 0 to 1000000 with at most 9") as no:
        nano_usd_of(text, usd_max=1_000_000)

    assert len(str(no.value)) < 200


@given(AMOUNTS)
def test_an_amount_that_is_printed_can_be_read(nano_usd: int) -> None:
    """Without its dollar."""
    assert nano_usd_of(usd(nano_usd).removeprefix("$"), usd_max=1_000) == nano_usd
