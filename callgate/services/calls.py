"""Find calls by why they wait or why they ended."""

from __future__ import annotations

import json
from dataclasses import replace

from callgate.domain.calls import CallState, CallView
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import CallFilter

SCANNED_MAX = 10_000
"""Calls of one state that a search by reason looks at."""
ENDED_WITHOUT_ANSWER = (CallState.DEAD, CallState.REJECTED)


def end_reason_of(view: CallView) -> str | None:
    """The code of the error that ended a call; None if it is open or succeeded."""
    if view.state not in ENDED_WITHOUT_ANSWER:
        return None
    try:
        return str(json.loads(view.error or "")["code"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "unknown"


def find_calls(
    operations: OperationsPort, call_filter: CallFilter, *, limit: int
) -> list[CallView]:
    """
    List calls, newest first, also by reason.

    It works with a ledger that ignores the reasons of a filter: a search by reason looks at the newest `SCANNED_MAX`
    calls of each state that can have it.
    """
    wait_reason, end_reason = call_filter.wait_reason, call_filter.end_reason
    if wait_reason is None and end_reason is None:
        return operations.calls(call_filter, limit=limit)
    possible = {CallState.WAITING} if wait_reason else set(CallState)
    possible &= set(ENDED_WITHOUT_ANSWER) if end_reason else possible
    if call_filter.state is not None:
        possible &= {call_filter.state}
    found = [
        view
        for state in possible
        for view in operations.calls(replace(call_filter, state=state), limit=SCANNED_MAX)
        if wait_reason in (None, view.wait_reason) and end_reason in (None, end_reason_of(view))
    ]
    return sorted(found, key=lambda view: view.created_at, reverse=True)[:limit]
