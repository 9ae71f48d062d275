"""How pages show budgets: words and shapes. Pure; templates escape the texts, and shapes are numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from callgate.domain.budget_states import BudgetState
from callgate.domain.budgets import CALL_TYPE_SCOPE, NANO_PER_USD, ORG_SCOPE, BudgetFigures
from callgate.domain.sums import QUARTER
from worker.flower.words import duration

WIDE = 100.0
"""The width of a drawing, and the height of a chart."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle of a drawing that is 100 wide; charts are 100 high too, and y counts from above."""

    x: float
    width: float
    y: float = 0.0
    height: float = WIDE
    is_over: bool = False
    """Whether it reaches its limit."""
    label: str = ""


def exact_usd(nano_usd: int) -> str:
    """An amount as a form takes it back: all its digits, no more."""
    return f"{(Decimal(nano_usd) / NANO_PER_USD).normalize():f}"


def scope_words(scope: str) -> str:
    """What a scope is called."""
    if scope == ORG_SCOPE:
        return "all calls"
    return scope.removeprefix(CALL_TYPE_SCOPE)


def exhausted_words(state: BudgetState) -> str:
    """When nothing is left, at the present rate."""
    after_s = state.exhausted_in_s
    if after_s is None:
        return "never" if state.lately_nano_usd <= 0 else "not in this period"
    return f"in {duration(after_s)}" if after_s else "now"


def used_bars(figures: BudgetFigures) -> tuple[Bar, Bar]:
    """What is spent, and after it what is held, as parts of the limit; what is more than the limit is cut off."""
    limit = max(1, figures.limit_nano_usd)
    spent = min(WIDE, figures.spent_nano_usd / limit * WIDE)
    held = min(WIDE - spent, figures.reserved_nano_usd / limit * WIDE)
    return Bar(0, round(spent, 2)), Bar(round(spent, 2), round(held, 2))


def percent(share: float) -> str:
    """A part of a whole, as people read it."""
    return f"{share * 100:,.0f} %" if share < 100 else "over 9,999 %"


def period_bars(spent_and_limit: Sequence[tuple[int, int]]) -> list[Bar]:
    """One bar per period; the highest is the largest limit or amount."""
    top = max((max(pair) for pair in spent_and_limit), default=0)
    return _bars(
        ((spent, spent >= limit > 0, "") for spent, limit in spent_and_limit),
        len(spent_and_limit),
        top,
    )


def quarter_bars(
    spent: Iterable[tuple[datetime, int]],
    since: datetime,
    quarters: int,
    label: Callable[[datetime, int], str],
) -> list[Bar]:
    """
    One bar per quarter hour.

    Args:
        label: What a bar says.
    """
    of = dict(spent)
    moments = [since + n * QUARTER for n in range(quarters)]
    amounts = [max(0, of.get(at, 0)) for at in moments]
    return _bars(
        ((amount, False, label(at, amount)) for at, amount in zip(moments, amounts, strict=True)),
        quarters,
        max(amounts, default=0),
    )


def _bars(values: Iterable[tuple[int, bool, str]], count: int, top: int) -> list[Bar]:
    width = WIDE / max(1, count)
    bars = []
    for n, (amount, is_over, text) in enumerate(values):
        height = amount / top * WIDE if top else 0.0
        # What is not nothing can be seen.
        height = max(height, 3.0) if amount else 0.0
        place = round(n * width, 2), round(width * 0.8, 2)
        bars.append(Bar(*place, round(WIDE - height, 2), round(height, 2), is_over, text))
    return bars
