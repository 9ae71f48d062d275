"""The rule of budget periods: each is one calendar day or month of its time zone, and they never overlap."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from callgate.domain.budgets import BudgetFigures, Window

if TYPE_CHECKING:
    from tests.simulation.world import World


class Periods:
    """Each budget period as it was first seen."""

    def __init__(self, world: World, check: Callable[[str, object, object], None]) -> None:
        self._world = world
        self._check = check
        self._periods: list[BudgetFigures] = []

    def check_new(self) -> None:
        """Check the periods that a statement has added."""
        for budget in list(self._world.ledger.tables.budgets.values())[len(self._periods) :]:
            name = (budget.org_id, budget.scope, budget.window)
            before = [b for b in self._periods if (b.org_id, b.scope, b.window) == name][-1:]
            # A new time zone holds from the next period on: this one may still be by the zone of the one before.
            zones = [ZoneInfo(b.timezone) for b in (budget, *before)]
            begins_well = any(_is_first_moment(budget.starts_at, budget.window, z) for z in zones)
            begins_well = begins_well or any(b.ends_at == budget.starts_at for b in before)
            ends = [_first_moment_after(budget.starts_at, budget.window, zone) for zone in zones]
            is_whole = begins_well and budget.ends_at in ends
            is_next = all(b.ends_at <= budget.starts_at for b in before)
            said = f"{self._world.named(budget)}: {budget.starts_at} to {budget.ends_at}"
            self._check("a_period_is_a_day_or_a_month", is_whole and is_next, said)
            self._periods.append(budget)


def _is_first_moment(at: datetime, window: Window, zone: ZoneInfo) -> bool:
    local = at.astimezone(zone)
    is_midnight = (local.hour, local.minute, local.second, local.microsecond) == (0, 0, 0, 0)
    return is_midnight and (window is Window.DAY or local.day == 1)


def _first_moment_after(at: datetime, window: Window, zone: ZoneInfo) -> datetime:
    """When the day or month ends that is under way at `at`, by the calendar of a zone."""
    day = at.astimezone(zone).date() + timedelta(days=1)
    while window is Window.MONTH and day.day != 1:
        day += timedelta(days=1)
    return datetime(day.year, day.month, day.day, tzinfo=zone)
