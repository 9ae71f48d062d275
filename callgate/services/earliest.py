"""When a call that waits for a limit, or for its provider, can be sent at the earliest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from callgate.domain.calls import CallKey, CallView, WaitReason
from callgate.domain.limits import SLACK_S, Measure, Need
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import BreakerLine, LimitLine


def earliest_at(view: CallView, operations: OperationsPort, now: datetime) -> datetime | None:
    """
    Return about when the call can be sent, if no other call is before it; None if that is not known.

    The output tokens that it may ask for are not known here, so limits of those are left out.

    Raises:
        LedgerUnavailable, NotPermitted
    """
    return earliest_times([view], operations, now).get(view.key)


def earliest_times(
    views: Sequence[CallView], operations: OperationsPort, now: datetime
) -> dict[CallKey, datetime]:
    """`earliest_at` of several calls, as far as it is known; limits and breakers are read once, and only if needed."""
    waiting = [v for v in views if v.wait_reason in (WaitReason.RATE_LIMITED, WaitReason.PROVIDER)]
    if not waiting:
        return {}
    limits, breakers = operations.limits(), operations.breakers()
    times = ((view.key, _earliest_at(view, limits, breakers, now)) for view in waiting)
    return {key: at for key, at in times if at is not None}


def _earliest_at(
    view: CallView, limits: Sequence[LimitLine], breakers: Sequence[BreakerLine], now: datetime
) -> datetime | None:
    limits = [limit for limit in limits if _is_of(limit, view)]
    credential = _credential(view, limits)
    blocking = [
        b
        for b in breakers
        if b.is_open
        and (b.provider, b.model, b.credential) == (view.provider, view.model, credential)
        and b.org_id in ("", view.org_id)
    ]
    if any(b.probe_at is None for b in blocking):
        return None
    times = _opening_times(blocking)
    if view.wait_reason is WaitReason.RATE_LIMITED:
        need = Need(view.input_token_bound, 0)
        own = (limit for limit in limits if limit.credential == credential)
        times += [
            now + timedelta(seconds=_wait_s(limit, need, now)) for limit in own if limit.window_s
        ]
    return max(times, default=None)


def _is_of(limit: LimitLine, view: CallView) -> bool:
    is_model = limit.model == view.model or (
        limit.is_shared and fnmatchcase(view.model, limit.model)
    )
    return limit.provider == view.provider and is_model


def _credential(view: CallView, limits: Sequence[LimitLine]) -> str:
    """The owner of the key that it waits for; a call that was never tried may wait for its organisation's own."""
    if view.last is not None:
        return view.last.credential
    is_own = any(
        limit.credential == view.org_id and view.org_id in limit.waiting for limit in limits
    )
    return view.org_id if is_own else ""


def _opening_times(blocking: Sequence[BreakerLine]) -> list[datetime]:
    return [b.probe_at for b in blocking if b.probe_at is not None]


def _wait_s(limit: LimitLine, need: Need, now: datetime) -> float:
    """The rule of `Limit.wait_s`, by what operators see of a limit."""
    units = 0 if limit.measure is Measure.OUTPUT_TOKENS else need.of(limit.measure)
    if units > limit.amount / 2 and limit.granted_at is not None:
        return max(0.0, limit.window_s + SLACK_S - (now - limit.granted_at).total_seconds())
    return max(0.0, (min(units, limit.amount / 2) - limit.free) / limit.refill_per_s)
