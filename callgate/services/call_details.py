"""All that is known of one call: what happened to it, why it waits, and what comes next. No body is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from callgate.domain.call_history import CallHistory, TimelineEvent, saved_nano_usd, timeline
from callgate.domain.calls import CallKey, CallView
from callgate.domain.delivery import LinkFailure
from callgate.domain.errors import AmbiguousCall, CallNotFound, InvalidRequest, NotPermitted
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import CallFilter
from callgate.domain.short_ids import CANDIDATES_MAX, ShortId, read_short_id
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
    Find a call by the text that names it; see `key_of`.

    Raises:
        InvalidRequest, AmbiguousCall: The text names no call, or several.
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
    The call that a task id or a call id names, or the first digits of one; without a generation its newest one.

    Raises:
        InvalidRequest: The text is neither.
        AmbiguousCall: Several calls begin with these digits.
        CallNotFound
        LedgerUnavailable
    """
    try:
        short = read_short_id(text)
        call_id = call_id_of(short, text, operations)
        if short.generation is not None:
            return CallKey.parse(str(call_id), short.generation)
    except ValueError as exc:
        raise InvalidRequest(str(exc)) from None
    for view in operations.calls(CallFilter(call_ids=(call_id,)), limit=1):
        return view.key
    raise CallNotFound(f"the ledger has no call {text}")


def call_id_of(short: ShortId, text: str, operations: OperationsPort) -> UUID:
    """
    The one call id that begins with some digits.

    Args:
        text: How it was named.

    Raises:
        AmbiguousCall, CallNotFound, LedgerUnavailable
    """
    if short.is_whole:
        return short.first
    found = operations.call_ids(short.first, short.last, limit=CANDIDATES_MAX + 1)
    if len(found) > 1:
        more = " and more" if len(found) > CANDIDATES_MAX else ""
        named = ", ".join(map(str, found[:CANDIDATES_MAX]))
        raise AmbiguousCall(f"{text} can be {named}{more}: give more digits")
    for call_id in found:
        return call_id
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
