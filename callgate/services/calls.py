"""Find a call by the text that names it, say all about it, and cancel it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from callgate.domain.calls import Bodies, CallKey, CallState, CallView
from callgate.domain.errors import CallNotFound, NotPermitted
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.ports import LedgerPort
from callgate.domain.reports import EndReason
from callgate.services import call_lines
from callgate.services.call_details import CallSeen, key_of, look_at
from callgate.services.earliest import earliest_times


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of a wish to cancel."""

    task_id: str
    is_cancelled: bool
    state: CallState
    """Where the call is now."""


class CallService:
    """Finds and cancels single calls."""

    def __init__(self, ledger: LedgerPort, operations: OperationsPort) -> None:
        self._ledger = ledger
        self._operations = operations

    def find(self, text: str, bodies: Bodies = Bodies.NONE) -> CallView:
        """
        Find a call by the text that names it; see `key_of`.

        Raises:
            InvalidRequest, AmbiguousCall, CallNotFound, LedgerUnavailable
        """
        key = key_of(text, self._operations)
        (view,) = self._ledger.read([key], bodies)
        if view is None:
            raise CallNotFound(f"the ledger has no call {text}")
        return view

    def details(self, text: str, bodies: Bodies, now: datetime) -> CallSeen:
        """
        Find a call, and all that is known about it.

        Raises:
            InvalidRequest, CallNotFound, LedgerUnavailable
        """
        seen = look_at(text, self._operations, now)
        if bodies is Bodies.NONE:
            return seen
        (view,) = self._ledger.read([seen.view.key], bodies)
        return seen if view is None else replace(seen, view=view)

    def next_tries(self, views: Sequence[CallView], now: datetime) -> dict[CallKey, datetime]:
        """About when waiting calls are tried next, as far as that is known and this login may read it."""
        try:
            return earliest_times(views, self._operations, now)
        except NotPermitted:
            return {}

    def cancel_named(self, text: str, reason: str) -> Cancelled:
        """
        Find a call, and cancel it if it is queued or waiting.

        Raises:
            InvalidRequest, CallNotFound, LedgerUnavailable
        """
        key = self.find(text).key
        is_cancelled = self.cancel(key, reason)
        return Cancelled(key.task_id, is_cancelled, self.find(key.task_id).state)

    def cancel(self, key: CallKey, reason: str) -> bool:
        """Cancel a queued or waiting call; True if it was cancelled."""
        is_cancelled = bool(self._operations.end([key], code=EndReason.CANCELLED, message=reason))
        if is_cancelled:
            for view in self._ledger.read([key]):
                if view is not None:
                    call_lines.say_cancelled(view)
        return is_cancelled
