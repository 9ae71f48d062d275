"""List the limits of providers, and what keeps their keys from being used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from callgate.domain.concurrency import CallsOf
from callgate.domain.limits import measured
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import BreakerLine, ConcurrencyLine, LimitLine


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One limit of a key, one breaker that keeps calls from it, or how many calls of an organisation may run."""

    model: str
    """Provider and model, or the pattern of a shared limit. Empty: all of them."""
    credential: str | None
    """The organisation whose own key it is; empty: the provider's key. None: all keys."""
    what: str
    """The measure and its window, `breaker`, or which calls may run at a time."""
    source: str
    amount: int | None
    used: float | None
    """The part of the capacity that is in use."""
    free: float | None
    blocked_until: datetime | None
    """When the key takes a probe; None: it is not blocked, or an operator must close its breaker."""
    why: str | None
    """Why it is blocked."""
    waiting: dict[str, int]
    """The calls that wait for it, by organisation."""


def list_limits(
    operations: OperationsPort, provider: str | None = None, model: str | None = None
) -> list[KeyLine]:
    """
    List limits, and breakers that are open, of a provider, of a model, or all.

    How many calls of an organisation may run at a time concerns all models, so it is always listed.

    Raises:
        LedgerUnavailable, NotPermitted
    """
    limits = [
        limit
        for limit in operations.limits()
        if provider in (None, limit.provider) and _is_of(limit, model)
    ]
    breakers = [
        b
        for b in operations.breakers()
        if provider in (None, b.provider) and model in (None, b.model) and (b.is_open or model)
    ]
    return [
        *(_limit(limit, breakers) for limit in limits),
        *map(_breaker, breakers),
        *map(_places, operations.concurrency()),
    ]


def _is_of(limit: LimitLine, model: str | None) -> bool:
    if model is None or limit.model == model:
        return True
    return limit.is_shared and fnmatchcase(model, limit.model)


def _limit(limit: LimitLine, breakers: list[BreakerLine]) -> KeyLine:
    key = limit.provider, limit.model, limit.credential, ""
    blocking = next(
        (b for b in breakers if (b.provider, b.model, b.credential, b.org_id) == key), None
    )
    is_blocked = blocking is not None and blocking.is_open
    return KeyLine(
        model=f"{limit.provider}/{limit.model}",
        credential=limit.credential,
        what=measured(limit.measure, limit.window_s),
        source=limit.source.value,
        amount=limit.amount,
        used=round(limit.capacity - limit.free, 1),
        free=round(limit.free, 1),
        blocked_until=blocking.probe_at if blocking and is_blocked else None,
        why=blocking.reason if blocking and is_blocked else None,
        waiting=limit.waiting,
    )


def _breaker(b: BreakerLine) -> KeyLine:
    return KeyLine(
        model=f"{b.provider}/{b.model}",
        credential=b.credential,
        what=f"breaker of {b.org_id}" if b.org_id else "breaker",
        source="open" if b.is_open else "closed",
        amount=None,
        used=None,
        free=None,
        blocked_until=b.probe_at,
        why=b.reason,
        waiting={b.org_id or "all": b.waiting} if b.waiting else {},
    )


def _places(line: ConcurrencyLine) -> KeyLine:
    calls = f"{line.call_type} calls" if line.call_type else "calls"
    if line.calls_of is CallsOf.CALL_TYPE and not line.call_type:
        calls = "calls of each call type"
    return KeyLine(
        model="",
        credential=None,
        what=f"running {calls} of {line.org_id or 'each organisation'}",
        source="declared",
        amount=line.amount,
        used=line.running if line.org_id else None,
        free=max(0, line.amount - line.running) if line.org_id else None,
        blocked_until=None,
        why=None,
        waiting={line.org_id: line.waiting} if line.waiting else {},
    )
