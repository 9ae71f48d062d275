"""
The rules of money that need no database: scopes, windows, admission, the wait of a refused call.

A budget limits what an organisation may spend in one scope and one window. `spent + reserved + hold <= limit`
must be true in every scope of a call, or nothing is held: an exact fit passes, one nano-USD more does not.
The Postgres functions and the memory ledger follow these rules; one contract suite holds them together.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from zoneinfo import ZoneInfo

NANO_PER_USD = 1_000_000_000
USD_CHARS_MAX = 64
"""No amount that is written out is longer."""
ORG_SCOPE = "org"
CALL_TYPE_SCOPE = "call_type:"
"""How the scope of a call type begins."""
HELD_WAIT_MAX_S = 30.0
"""The longest wait before a call held up by others is tried again."""
HELD_WAIT_MIN_S = 0.25
"""The shortest such wait: a fresh call must not spin."""
PERIOD_WAIT_MAX = timedelta(days=62)
"""An older call does not wait for the next period any more: two months, so each window has begun twice."""


class Window(StrEnum):
    """How long a budget's period lasts, in the budget's own time zone."""

    DAY = "day"
    MONTH = "month"


class RefusalReason(StrEnum):
    """Why the ledger refused a hold. The reason that lasts longest is last."""

    HELD = "held"
    EXHAUSTED = "exhausted"
    TOO_SMALL = "too_small"
    NO_PERIOD = "no_period"
    NOT_CONFIGURED = "not_configured"


@dataclass(frozen=True, slots=True)
class BudgetFigures:
    """One budget in its current period. All amounts in nano-USD."""

    budget_id: int
    org_id: str
    scope: str
    window: Window
    timezone: str
    starts_at: datetime
    ends_at: datetime
    limit_nano_usd: int
    reserved_nano_usd: int
    spent_nano_usd: int

    @property
    def left_nano_usd(self) -> int:
        """What a new hold may take; negative after an overrun."""
        return self.limit_nano_usd - self.spent_nano_usd - self.reserved_nano_usd


@dataclass(frozen=True, slots=True)
class BudgetRefusal:
    """Why one hold was refused: the scope that refused it, with its figures at that moment."""

    reason: RefusalReason
    org_id: str
    scope: str
    window: Window | None
    limit_nano_usd: int
    spent_nano_usd: int
    reserved_nano_usd: int
    requested_nano_usd: int

    def __str__(self) -> str:
        if self.reason is RefusalReason.NOT_CONFIGURED:
            return f"no budget of org {self.org_id!r} covers this call; set one with `callgate budgets set`"
        if self.reason is RefusalReason.NO_PERIOD:
            return (
                f"org {self.org_id!r}, scope {self.scope!r} per {self.window}: the period has ended, and none can"
                " follow, because Postgres does not know its time zone; set another with"
                f" `{self._set_command} --timezone UTC`"
            )
        return f"org {self.org_id!r}, scope {self.scope!r} per {self.window}: {self._amounts}"

    @property
    def _amounts(self) -> str:
        asked, limit = usd(self.requested_nano_usd), usd(self.limit_nano_usd)
        if self.reason is RefusalReason.TOO_SMALL:
            return (
                f"the call may cost {asked}, which is more than the whole limit of {limit}: raise it to at least"
                f" {asked} with `{self._set_command}`"
            )
        spent, held = usd(self.spent_nano_usd), usd(self.reserved_nano_usd)
        left = usd(self.limit_nano_usd - self.spent_nano_usd - self.reserved_nano_usd)
        return (
            f"the call may cost {asked}, and {left} are left: of the limit of {limit}, {spent} are spent and {held} are"
            " held for calls in flight"
        )

    @property
    def _set_command(self) -> str:
        """How an operator names this budget on the command line."""
        of_type = self.scope.partition(CALL_TYPE_SCOPE)[2]
        words = ["callgate", "budgets", "set", self.org_id]
        return shlex.join([*words, "--call-type", of_type] if of_type else words)

    def to_json(self) -> str:
        """The refusal as stored in `llm_call.error`; `code` is stable."""
        return json.dumps({"code": f"budget_{self.reason}", "message": str(self), **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> BudgetRefusal:
        """Read back what `to_json` or the reserve function wrote."""
        fields = json.loads(text)
        window = fields["window"]
        return cls(
            reason=RefusalReason(fields["reason"]),
            org_id=fields["org_id"],
            scope=fields["scope"],
            window=Window(window) if window else None,
            limit_nano_usd=fields["limit_nano_usd"],
            spent_nano_usd=fields["spent_nano_usd"],
            reserved_nano_usd=fields["reserved_nano_usd"],
            requested_nano_usd=fields["requested_nano_usd"],
        )


def scopes_of(call_type: str) -> tuple[str, str]:
    """The scopes of a call. Every budget in them must have headroom for it."""
    return (ORG_SCOPE, f"{CALL_TYPE_SCOPE}{call_type}")


def refusal_of(figures: BudgetFigures, hold_nano_usd: int, now: datetime) -> RefusalReason | None:
    """Why this budget refuses the hold, or None if it fits. It was rolled over first, if that could be."""
    if figures.ends_at <= now:
        return RefusalReason.NO_PERIOD
    if hold_nano_usd <= figures.left_nano_usd:
        return None
    if hold_nano_usd > figures.limit_nano_usd:
        return RefusalReason.TOO_SMALL
    if hold_nano_usd > figures.limit_nano_usd - figures.spent_nano_usd:
        return RefusalReason.EXHAUSTED
    return RefusalReason.HELD


def admit(
    budgets: Iterable[BudgetFigures], org_id: str, hold_nano_usd: int, now: datetime
) -> BudgetRefusal | None:
    """
    Decide one hold over all budgets of a call: all of them or none.

    Returns:
        None if it fits everywhere. Else the refusal that lasts longest; of two alike, the one of the lower budget id.
    """
    order = list(RefusalReason)
    refused = [(reason, b) for b in budgets if (reason := refusal_of(b, hold_nano_usd, now))]
    if not refused:
        return None
    reason, worst = min(refused, key=lambda pair: (-order.index(pair[0]), pair[1].budget_id))
    return BudgetRefusal(
        reason, org_id, worst.scope, worst.window, worst.limit_nano_usd,
        worst.spent_nano_usd, worst.reserved_nano_usd, hold_nano_usd,
    )  # fmt: skip


def held_wait_s(age_s: float) -> float:
    """Seconds until a call held up by others is tried again: a quarter of its age, within bounds."""
    return min(max(age_s / 4, HELD_WAIT_MIN_S), HELD_WAIT_MAX_S)


def period_of(at: datetime, window: Window, timezone: str) -> tuple[datetime, datetime] | None:
    """
    The period `[starts_at, ends_at)` that holds `at`, for ledgers without Postgres; None if the zone is unknown.

    Both ends are local midnights, so a day of a clock change has 23 or 25 hours. A midnight that comes twice is the
    later one, as in Postgres.
    """
    try:
        zone = ZoneInfo(timezone)
    except (OSError, ValueError, KeyError):
        return None
    start = at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    if window is Window.MONTH:
        start = start.replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1)
    else:
        end = start + timedelta(days=1)
    return _moment(start), _moment(end)


def _moment(local: datetime) -> datetime:
    """In UTC. Of the two readings of a local time that comes twice, or never, the later one."""
    utc = ZoneInfo("UTC")
    return max(local.replace(fold=fold).astimezone(utc) for fold in (0, 1))


def hold_nano_usd(amount_usd: Decimal) -> int:
    """An amount to hold, rounded up: a hold must never be below the truth."""
    return int((amount_usd * NANO_PER_USD).to_integral_value(ROUND_CEILING))


def cost_nano_usd(amount_usd: Decimal) -> int:
    """A cost, rounded half-even, so that many small costs do not drift."""
    return int((amount_usd * NANO_PER_USD).to_integral_value(ROUND_HALF_EVEN))


def nano_usd_of(text: str, *, usd_max: int) -> int:
    """
    Read an amount of USD exactly: `1.25`, or `1.2E-5` as spreadsheets write it.

    Raises:
        ValueError: It is none from 0 to `usd_max` with at most nine decimals.
    """
    complaint = (
        f"{text[:USD_CHARS_MAX]!r} is no amount of USD from 0 to {usd_max} with at most 9 decimals"
    )
    try:
        if len(text) > USD_CHARS_MAX or "_" in text or not text.isascii():
            raise ValueError(complaint)
        amount = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(complaint) from None
    # An exponent may be so large, or so small, that even counting its digits would not end.
    if not amount.is_finite() or not 0 <= amount <= usd_max or (amount.adjusted() < -9 and amount):
        raise ValueError(complaint)
    nano_usd = Fraction(amount) * NANO_PER_USD if amount else Fraction(0)
    if nano_usd.denominator != 1:
        raise ValueError(complaint)
    return int(nano_usd)


def usd(nano_usd: int) -> str:
    """`$0.001230` and the like, for people: six decimals, or nine where fewer would hide money."""
    decimals = 6 if nano_usd % 1000 == 0 else 9
    return f"${Decimal(nano_usd) / NANO_PER_USD:.{decimals}f}"
