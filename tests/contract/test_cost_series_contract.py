"""Costs over time: by step of a time zone and value of a dimension, out of sums and deltas alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from callgate.domain.cost_series import Grid, SeriesPoint, Step
from callgate.domain.sums import CostFilter
from tests.support.ledger_under_test import DAY_S, ORG, LedgerUnderTest, a_submission

HOURS, DAYS, LOCAL_DAYS = (
    Grid(Step.HOUR, "Asia/Kathmandu"), Grid(Step.DAY, "UTC"), Grid(Step.DAY, "Asia/Kathmandu"),
)  # fmt: skip


def lately(ledger: LedgerUnderTest, **narrowed: object) -> CostFilter:
    """The last three days, and the coming hour."""
    now = ledger.now()
    which = CostFilter(since=now - timedelta(days=3), until=now + timedelta(hours=1))
    return replace(which, **narrowed)  # type: ignore[arg-type]


def named(points: list[SeriesPoint]) -> dict[str | None, int]:
    """What each value posted in all."""
    totals: dict[str | None, int] = {}
    for point in points:
        totals[point.name] = totals.get(point.name, 0) + point.posted_nano_usd
    return totals


@pytest.fixture
def used(ledger: LedgerUnderTest) -> LedgerUnderTest:
    """Something was used two days ago and today, of two call types, and collapsed once."""
    ledger.succeeded("one", 60)
    ledger.submit(a_submission("one"))
    ledger.age(2 * DAY_S)
    ledger.succeeded("two", 30, call_type="triage")
    ledger.succeeded("three", 5)
    return ledger


def fold(ledger: LedgerUnderTest) -> None:
    """Move all deltas into the sums. Some of their times were moved, so that sums are where they would be."""
    while ledger.sums.fold_sums(limit=1_000):
        pass


def leave(_: LedgerUnderTest) -> None:
    """Leave the deltas where they are."""


@pytest.mark.parametrize("grid", [HOURS, DAYS, LOCAL_DAYS])
@pytest.mark.parametrize("bring", [leave, fold])
def test_points_add_up_to_what_was_used(
    used: LedgerUnderTest, grid: Grid, bring: Callable[[LedgerUnderTest], None]
) -> None:
    """By call type in the steps in which attempts began, whatever was folded."""
    bring(used)
    which, today = lately(used), grid.start_of(used.now())

    points = used.cost_series.cost_series(which, grid, "call_type")

    assert named(points) == {"extraction": 65, "triage": 30}
    assert {grid.start_of(point.starts_at) for point in points} == {p.starts_at for p in points}
    latest = [(p.name, p.posted_nano_usd, p.attempts) for p in points if p.starts_at == today]
    assert latest == [("extraction", 5, 1), ("triage", 30, 1)]
    assert sum(point.saved_nano_usd for point in points) == 60


def test_values_beyond_the_largest_are_one(used: LedgerUnderTest) -> None:
    """It has no name, and comes last of each step."""
    points = used.cost_series.cost_series(lately(used), DAYS, "call_type", top_max=1)

    assert named(points) == {"extraction": 65, None: 30}
    assert [point.name for point in points][-1] is None


def test_what_is_not_known_has_an_empty_name(used: LedgerUnderTest) -> None:
    """Nobody has a project yet."""
    points = used.cost_series.cost_series(lately(used), DAYS, "project")

    assert named(points) == {"": 95}


def test_filters_narrow(used: LedgerUnderTest) -> None:
    """As those of the costs do; what is empty is left out."""
    series = used.cost_series.cost_series

    assert named(series(lately(used, call_type="triage"), DAYS, "org_id")) == {ORG: 30}
    assert named(series(lately(used, kind="collapsed"), DAYS, "outcome")) == {"replayed": 0}
    assert series(lately(used, org_id="nobody"), DAYS, "org_id") == []
    recent = lately(used, since=used.now() - timedelta(minutes=20))
    assert named(series(recent, HOURS, "org_id")) == {ORG: 35}


def test_a_step_that_was_cut_is_counted_by_quarter_hours(ledger: LedgerUnderTest) -> None:
    """Of a long time in UTC the first day is whole, since only whole days are summed up."""
    ledger.succeeded("one", 60)
    now = ledger.now()
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
    late = CostFilter(since=now + timedelta(hours=1), until=now + timedelta(days=2))

    (point,) = ledger.cost_series.cost_series(late, DAYS, "org_id")

    assert (point.starts_at, point.posted_nano_usd) == (DAYS.start_of(late.since or now), 60)
    assert point.starts_at in (midnight, midnight + timedelta(days=1))


def test_lines_come_largest_first_and_are_bounded(used: LedgerUnderTest) -> None:
    """With all that was used; of no dimension there is one line."""
    ask, which = used.cost_series.cost_lines, lately(used)

    largest, small = ask(which, ("call_type",), limit=5)
    (only,) = ask(which, ("call_type",), limit=1)
    (total,) = ask(which, (), limit=5)

    assert (largest.call_type, largest.used.posted_nano_usd) == ("extraction", 65)
    assert (small.call_type, small.used.posted_nano_usd, small.org_id) == ("triage", 30, None)
    assert only == largest
    assert (total.used.posted_nano_usd, total.used.saved_nano_usd) == (95, 60)
    assert used.operations.costs(which, ("call_type",)) == [largest, small]
    assert ask(replace(which, org_id="nobody"), (), limit=5) == []
