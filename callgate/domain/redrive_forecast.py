"""How many calls of a planned redrive would be refused, or would wait, if they were released now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase

from callgate.domain.budgets import BudgetFigures, RefusalReason, admit, scopes_of
from callgate.domain.limits import OVERSIZED_CODE, Need
from callgate.domain.pauses import PAUSED_CODE, PauseKey
from callgate.domain.redrives import FROZEN, RedriveCall, RedriveOutcome
from callgate.domain.reports import BreakerLine, LimitLine

PROVIDER_CODE = "provider"
"""Why a call waits whose provider is not called at the moment."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What decides about calls that are released now."""

    now: datetime
    budgets: Sequence[BudgetFigures]
    pauses: Sequence[PauseKey] = ()
    breakers: Sequence[BreakerLine] = ()
    limits: Sequence[LimitLine] = ()
    has_default_limit: bool = False
    """Whether organisations without a budget get one."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Calls by the reason why they would be refused, or would wait. Each is counted once."""

    refused: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)

    @property
    def refused_calls(self) -> int:
        """How many would be refused."""
        return sum(self.refused.values())

    @property
    def waiting_calls(self) -> int:
        """How many would wait."""
        return sum(self.waiting.values())


def forecast(calls: Iterable[RedriveCall], seen: Circumstances) -> Forecast:
    """
    Let the pending calls of a redrive pass one after another, each with its whole hold, at once.

    It is a forecast: calls end meanwhile and give money back, and others take it.
    """
    refused: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    money = _Money(seen)
    for call in calls:
        if call.outcome is not RedriveOutcome.PENDING:
            continue
        if code := _refusal(call, seen):
            refused[code] += 1
        elif code := _wait(call, seen):
            waiting[code] += 1
        elif reason := money.refusal(call):
            group = waiting if reason is RefusalReason.HELD else refused
            group[f"budget_{reason}"] += 1
    return Forecast(dict(refused), dict(waiting))


class _Money:
    """The budgets, as the calls before have left them."""

    def __init__(self, seen: Circumstances) -> None:
        self._now = seen.now
        self._has_default = seen.has_default_limit
        self._budgets: dict[tuple[str, str], list[BudgetFigures]] = {}
        for budget in seen.budgets:
            self._budgets.setdefault((budget.org_id, budget.scope), []).append(
                _current(budget, seen.now)
            )

    def refusal(self, call: RedriveCall) -> RefusalReason | None:
        """Why no hold can be made for a call; otherwise it is made."""
        scopes = [(call.org_id, scope) for scope in scopes_of(call.call_type)]
        found = [budget for scope in scopes for budget in self._budgets.get(scope, ())]
        hold = call.worst_case_nano_usd or 0
        if not found:
            return None if self._has_default else RefusalReason.NOT_CONFIGURED
        if refusal := admit(found, call.org_id, hold, self._now):
            return refusal.reason
        for scope in scopes:
            self._budgets[scope] = [_holding(b, hold) for b in self._budgets.get(scope, ())]
        return None


def _current(budget: BudgetFigures, now: datetime) -> BudgetFigures:
    """The budget in the period of now: one that has ended is followed by an unused one."""
    if budget.ends_at > now:
        return budget
    ends_at = now + (budget.ends_at - budget.starts_at)
    return replace(budget, ends_at=ends_at, reserved_nano_usd=0, spent_nano_usd=0)


def _holding(budget: BudgetFigures, hold: int) -> BudgetFigures:
    return replace(budget, reserved_nano_usd=budget.reserved_nano_usd + hold)


def _refusal(call: RedriveCall, seen: Circumstances) -> str | None:
    if any(key.is_freeze and key.org_id == call.org_id for key in seen.pauses):
        return FROZEN
    need = Need(call.input_token_bound, call.output_token_bound)
    if any(_limits(limit, call) and need.of(limit.measure) > limit.amount for limit in seen.limits):
        return OVERSIZED_CODE
    return None


def _limits(limit: LimitLine, call: RedriveCall) -> bool:
    """True if a limit may concern the key of a call. Whose key it is, only workers know."""
    is_model = (
        fnmatchcase(call.model, limit.model) if limit.is_shared else limit.model == call.model
    )
    is_key = limit.provider == call.provider and limit.credential in ("", call.org_id)
    return is_model and is_key and limit.window_s > 0


def _wait(call: RedriveCall, seen: Circumstances) -> str | None:
    names = call.org_id, call.call_type, call.provider, call.model
    if any(key.covers(*names) for key in seen.pauses):
        return PAUSED_CODE
    is_open = any(
        b.is_open and b.org_id in ("", call.org_id) and b.credential in ("", call.org_id)
        for b in seen.breakers
        if (b.provider, b.model) == (call.provider, call.model)
    )
    return PROVIDER_CODE if is_open else None
