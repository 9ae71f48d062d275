"""All that is known of one call: what happened to it, why it waits, and what comes next. No body is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from callgate.domain.call_history import CallHistory, TimelineEvent, saved_nano_usd, timeline
from callgate.domain.calls import CallKey, CallView
from callgate.domain.delivery import LinkFailure
from callgate.domain.errors import CallNotFound, InvalidRequest, NotPermitted
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import CallFilter
from callgate.services.waiting import Outlook, outlook_of

LINK_FAILURES_MAX = 100
"""So many links that are not delivered are shown of a call."""


@dataclass(frozen=True, slots=True)
class CallSeen:
    """One call."""

    view: CallView
    history: CallHistory
    events: Sequence[TimelineEvent]
    link_failures: Sequence[LinkFailure]
    outlook: Outlook
    """Of a call that waits. Empty if this login may not read limits."""
    saved_nano_usd: int

    @property
    def newest(self) -> CallKey:
        """The newest generation of the same call."""
        return max((g.key for g in self.history.generations), default=self.view.key)


def look_at(text: str, operations: OperationsPort, now: datetime) -> CallSeen:
    """
    Find a call by its task id, or the newest generation of a call id.

    Raises:
        InvalidRequest: The text is neither.
        CallNotFound: Nor if this login may not read it.
        LedgerUnavailable
    """
    key = key_of(text, operations)
    (view,) = operations.views([key])
    if view is None:
        raise CallNotFound(f"the ledger has no call {text}")
    history = operations.call_history(key)
    try:
        outlook = outlook_of(view, operations, now)
    except NotPermitted:
        outlook = Outlook()
    return CallSeen(
        view=view,
        history=history,
        events=timeline(view, history),
        link_failures=operations.link_failures(key, limit=LINK_FAILURES_MAX),
        outlook=outlook,
        saved_nano_usd=saved_nano_usd(view, history.submissions),
    )


def key_of(text: str, operations: OperationsPort) -> CallKey:
    """
    The call that a task id names, or the newest generation of a call id.

    Raises:
        InvalidRequest: The text is neither.
        CallNotFound
        LedgerUnavailable
    """
    if "." in text:
        return key_of_task(text)
    try:
        call_id = UUID(text)
    except ValueError:
        raise InvalidRequest(f"{text!r} is not a call id or task id") from None
    for view in operations.calls(CallFilter(call_ids=(call_id,)), limit=1):
        return view.key
    raise CallNotFound(f"the ledger has no call {text}")


def key_of_task(task_id: str) -> CallKey:
    """
    Read a task id.

    Raises:
        InvalidRequest: The text is not a task id of callgate.
    """
    try:
        return CallKey.from_task_id(task_id)
    except ValueError as exc:
        raise InvalidRequest(f"{task_id!r} is not a task id of callgate") from exc
