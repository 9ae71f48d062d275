"""
How full budgets are, when they will be spent, and what a new limit lets run: what the pages of operators show.

Amounts are nano-USD. Nothing here admits a call: `reserve` decides, by `callgate.domain.budgets`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from callgate.domain.budgets import BudgetFigures, Window, scopes_of, usd
from callgate.domain.sums import QUARTER, quarter_of

RATE_QUARTERS = 4
"""The present rate is that of so many quarter hours, of which the last is not over."""
PERIODS_SHOWN = 14
"""Past periods in the list of budgets."""


class BudgetName(NamedTuple):
    """Which budget, in whatever period. Names sort as lists of budgets do."""

    org_id: str
    scope: str
    window: Window

    @classmethod
    def of(cls, figures: BudgetFigures) -> BudgetName:
        """The name of a budget with figures."""
        return cls(figures.org_id, figures.scope, figures.window)


@dataclass(frozen=True, slots=True)
class PastPeriod:
    """A period of a budget that is not its newest."""

    starts_at: datetime
    limit_nano_usd: int
    spent_nano_usd: int


@dataclass(frozen=True, slots=True)
class Short:
    """Calls that wait because a budget has less left than their hold."""

    calls: int
    hold_nano_usd: int
    """What they would hold together."""
    is_more: bool = False
    """Whether there may be more: not all waiting calls were looked at."""


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget in its newest period, with what waits for it and how fast it is spent."""

    figures: BudgetFigures
    at: datetime
    """When it was read, by the ledger's clock."""
    lately_nano_usd: int
    """What attempts of its scope have posted that began at `lately_since(at)` or later."""
    short: Short
    past: tuple[PastPeriod, ...] = ()
    """The periods before, oldest first. A period without a call has no row."""

    @property
    def has_ended(self) -> bool:
        """Whether its period is over. The next one begins with the next call, with nothing spent."""
        return self.figures.ends_at <= self.at

    @property
    def now(self) -> BudgetFigures:
        """Its figures as the next call finds them."""
        return current(self.figures, self.at)

    @property
    def used_share(self) -> float:
        """Spent and held, as a part of the limit; more than 1 after an overrun. A limit of 0 is used up."""
        used = self.now.spent_nano_usd + self.now.reserved_nano_usd
        return used / self.now.limit_nano_usd if self.now.limit_nano_usd else 1.0

    @property
    def nano_usd_per_hour(self) -> int:
        """The present rate."""
        return round(self.lately_nano_usd / _elapsed_s(self.at) * 3_600)

    @property
    def exhausted_in_s(self) -> float | None:
        """See `exhausted_in_s`."""
        return exhausted_in_s(
            self.now.left_nano_usd,
            spent_nano_usd=self.lately_nano_usd,
            elapsed_s=_elapsed_s(self.at),
            period_left_s=(self.figures.ends_at - self.at).total_seconds(),
        )


def current(figures: BudgetFigures, at: datetime) -> BudgetFigures:
    """Figures as a call finds them at `at`: a period that is over is followed by one in which nothing is used."""
    if figures.ends_at > at:
        return figures
    return replace(figures, reserved_nano_usd=0, spent_nano_usd=0)


def lately_since(at: datetime) -> datetime:
    """Since when the present rate is measured: the begin of a quarter hour, 45 to 60 minutes ago."""
    return quarter_of(at) - (RATE_QUARTERS - 1) * QUARTER


def _elapsed_s(at: datetime) -> float:
    return (at - lately_since(at)).total_seconds()


def exhausted_in_s(
    left_nano_usd: int, *, spent_nano_usd: int, elapsed_s: float, period_left_s: float
) -> float | None:
    """
    In how many seconds nothing is left, if it goes on as in the last `elapsed_s` seconds.

    Args:
        left_nano_usd: What a new hold may take now.
        spent_nano_usd: What was spent in those seconds.
        period_left_s: Seconds until the period ends and all is free again. Not positive: it has ended.

    Returns:
        0 if nothing is left now. None if it is never used up: nothing is spent, or the period ends first.
    """
    if left_nano_usd <= 0:
        return 0.0
    if spent_nano_usd <= 0:
        return None
    after_s = left_nano_usd * elapsed_s / spent_nano_usd
    return after_s if after_s < period_left_s else None


@dataclass(frozen=True, slots=True)
class MoneyWaiter:
    """A call that waits for money."""

    call_type: str
    hold_nano_usd: int


@dataclass(frozen=True, slots=True)
class LimitPreview:
    """What a new limit of one budget changes for the calls that wait now."""

    old_nano_usd: int | None
    """The limit now; None: there is no such budget yet."""
    new_nano_usd: int
    left_nano_usd: int
    """What a new hold may take under the new limit; negative: more is used already."""
    waiting: int
    """Calls of its scope that wait for money and were looked at."""
    waiting_nano_usd: int
    would_run: int
    """So many of them fit under the new limit, oldest first, with what other budgets have left."""
    would_run_nano_usd: int
    would_run_now: int
    """So many fit under the old limit."""
    is_more: bool
    """Whether more wait than were looked at."""


def preview(
    budgets: Sequence[BudgetFigures],
    waiters: Sequence[MoneyWaiter],
    name: BudgetName,
    limit_nano_usd: int,
    *,
    at: datetime,
    is_more: bool = False,
) -> LimitPreview:
    """
    What a new limit lets run.

    Args:
        budgets: All budgets of the organisation, in their newest periods.
        waiters: Calls of the organisation that wait for money, oldest first; those of other scopes are passed over.
        is_more: Whether more wait than `waiters`.
    """
    known = {BudgetName.of(b): current(b, at) for b in budgets}
    before = {key: b.left_nano_usd for key, b in known.items()}
    budget = known.get(name)
    used = budget.spent_nano_usd + budget.reserved_nano_usd if budget else 0
    after = {**before, name: limit_nano_usd - used}
    fitting = fitting_of(after, waiters, name.org_id)
    concerned = [w for w in waiters if name.scope in scopes_of(w.call_type)]
    running = [w for w in fitting if name.scope in scopes_of(w.call_type)]
    now = [
        w for w in fitting_of(before, waiters, name.org_id) if name.scope in scopes_of(w.call_type)
    ]
    return LimitPreview(
        old_nano_usd=budget.limit_nano_usd if budget else None,
        new_nano_usd=limit_nano_usd,
        left_nano_usd=after[name],
        waiting=len(concerned),
        waiting_nano_usd=sum(w.hold_nano_usd for w in concerned),
        would_run=len(running),
        would_run_nano_usd=sum(w.hold_nano_usd for w in running),
        would_run_now=len(now),
        is_more=is_more,
    )


def fitting_of(
    left: Mapping[BudgetName, int], waiters: Iterable[MoneyWaiter], org_id: str
) -> list[MoneyWaiter]:
    """
    Which calls fit into what budgets have left, oldest first; one that does not fit is passed over.

    As `callgate_free_budget_waiters_v1` does: a call needs headroom in all budgets of its scopes that exist.
    """
    rest = dict(left)
    found = []
    for waiter in waiters:
        names = [
            BudgetName(org_id, scope, window)
            for scope in scopes_of(waiter.call_type)
            for window in Window
        ]
        mine = [name for name in names if name in rest]
        if all(waiter.hold_nano_usd <= rest[name] for name in mine):
            found.append(waiter)
            for name in mine:
                rest[name] -= waiter.hold_nano_usd
    return found


@dataclass(frozen=True, slots=True)
class Affected:
    """The calls that a pause, a freeze or a breaker concerns now."""

    running: int
    """They end as usual."""
    held_nano_usd: int
    """What those hold."""
    queued: int
    waiting: int
    """For whatever reason."""
    orgs: int
    """Of so many organisations."""
    is_more: bool
    """Whether there may be more: not all queued and waiting calls were looked at."""


def limit_changed(now_nano_usd: int | None) -> str:
    """Why a limit was not changed: it is another one now than the operator saw."""
    if now_nano_usd is None:
        return "there is no such budget any more"
    return f"the limit is {usd(now_nano_usd)} now"
