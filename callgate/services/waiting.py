"""What is known of how long a call still waits: when it can be sent, or what is before it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from callgate.domain.calls import CallView, WaitReason
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import Ahead, ConcurrencyLine
from callgate.services.earliest import earliest_at


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known; nothing of a call that does not wait."""

    earliest_at: datetime | None = None
    """Of a call that waits for its provider or a limit; see `earliest_at`."""
    ahead: Ahead | None = None
    """Of a call that waits for a place or held money. Nobody knows when the calls before it end."""
    places: tuple[ConcurrencyLine, ...] = ()
    """Of a call that waits for a place: how many calls of its organisation, and of its type, run and may run."""


def outlook_of(view: CallView, operations: OperationsPort, now: datetime) -> Outlook:
    """
    Say what is known about the wait of a call.

    Raises:
        LedgerUnavailable, NotPermitted
    """
    places: tuple[ConcurrencyLine, ...] = ()
    if view.wait_reason is WaitReason.CONCURRENCY_LIMITED:
        places = tuple(
            line
            for line in operations.concurrency()
            if line.org_id == view.org_id and line.call_type in ("", view.call_type)
        )
    waits_here = view.wait_reason in (WaitReason.CONCURRENCY_LIMITED, WaitReason.BUDGET_HELD)
    ahead = operations.ahead(view.key) if waits_here else None
    return Outlook(earliest_at(view, operations, now), ahead, places)
