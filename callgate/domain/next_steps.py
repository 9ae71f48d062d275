"""What comes next for a call, in words for people: what it waits for, and what happens without an operator."""

from __future__ import annotations

from collections.abc import Mapping

from callgate.domain.calls import CallState, CallView, WaitReason

NEXT_BY_STATE: Mapping[CallState, str] = {
    CallState.QUEUED: "A worker claims it, asks budgets and limits, and sends it.",
    CallState.RUNNING: "Its attempt is under way. The answer is recorded and settled, or the attempt expires.",
    CallState.WAITING: "It waits; see why.",
    CallState.SUCCEEDED: "Nothing: it has its answer. The same request gets that answer without a new call.",
    CallState.DEAD: "Nothing happens by itself. A redrive gives it its next generation; discarding ends it.",
    CallState.REJECTED: "Nothing: it ended without an answer. The same request, submitted again, is tried again.",
}
NEXT_BY_WAIT: Mapping[WaitReason, str] = {
    WaitReason.RETRY: "Its last attempt failed. It is queued again when it is due.",
    WaitReason.BUDGET_HELD: "Calls in flight hold the money that it needs. It is queued when one of them settles for"
    " less, or another look finds room.",
    WaitReason.BUDGET_EXHAUSTED: "The money of the period is spent. It is queued when the next period begins, or when"
    " an operator raises the limit.",
    WaitReason.PROVIDER: "The breaker of its provider is open. It is queued when a probe has succeeded.",
    WaitReason.QUARANTINE: "It may have killed a worker. It runs alone, in a process of its own, when one is free.",
    WaitReason.MEMORY: "Its request is large. It is queued when a worker has room in its memory.",
    WaitReason.RATE_LIMITED: "A limit of its provider is used up, or its key is blocked. It is queued when there is"
    " room, in turn with other organisations.",
    WaitReason.BACKLOG: "Its organisation has many calls queued. It is queued by its rank as those are sent.",
    WaitReason.PAUSED: "An operator has paused calls like it. It is queued when they are resumed.",
    WaitReason.CONCURRENCY_LIMITED: "As many calls of its organisation run as may. It is queued when one of them ends.",
    WaitReason.LOCKED: "Another transaction held it for a moment. It is queued at once.",
}


def next_step(view: CallView) -> str:
    """What comes next if no operator does anything."""
    return NEXT_BY_WAIT[view.wait_reason] if view.wait_reason else NEXT_BY_STATE[view.state]
