"""What `callgate calls show` says of the past of a call, and of what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from callgate.cli.output import cell_text, print_note, print_table
from callgate.domain.budgets import usd
from callgate.domain.call_history import Attempt, SubmissionLine
from callgate.domain.calls import AttemptStatus, AttemptView, CallState, CallView
from callgate.domain.next_steps import next_step
from callgate.domain.provider import Failure
from callgate.domain.requests import Usage
from callgate.domain.stored_errors import error_text, parse_error
from callgate.services.call_details import CallSeen

ATTEMPTS = (
    *(">n", "!attempt", "!kind", "!status", "!sent at", "sent by worker", "key", ">latency"),
    *("tokens", ">held", ">posted", "price", "flags", "error"),
)
SUBMISSIONS = ("!submitted", "!outcome", "idempotency key", "link")
ACTIONS = ("!at", "!action", "operator", "reason")
_FINGERPRINTED = (CallState.WAITING, CallState.DEAD)


def summary_fields(seen: CallSeen) -> dict[str, object]:
    """What the lines of `calls show` say in short: how its error is grouped, who asked, what comes next."""
    view, subs = seen.view, seen.history.submissions
    held = sum(a.view.hold_nano_usd for a in seen.history.attempts if not a.view.status.is_posted)
    later = seen.newest if seen.newest != view.key else None
    saved = f", which saved {usd(seen.saved_nano_usd)}" if seen.saved_nano_usd else ""
    return {
        "fingerprint": fingerprint_of(view),
        "held now": usd(held) if held else None,
        "asked for": f"{subs.total} times, {subs.collapsed} without a call of their own{saved}"
        if subs.total
        else None,
        "later": later and f"{later.task_id} replaced it",
        "next": f"nothing: see {later.task_id}" if later else next_step(view),
    }


def history_fields(seen: CallSeen) -> dict[str, Any]:
    """The past of a call as JSON; amounts are nano-USD."""
    history = seen.history
    return {
        "error_fingerprint": fingerprint_of(seen.view),
        "attempts": [_attempt_fields(attempt, seen.view) for attempt in history.attempts],
        "submissions": history.submissions,
        "generations": [
            {"task_id": g.key.task_id, "state": g.state, "created_at": g.created_at}
            for g in history.generations
        ],
        "actions": [
            {"at": a.at, "operator": a.by.operator, "reason": a.by.reason, "action": a.action}
            for a in history.actions
        ],
        "saved_nano_usd": seen.saved_nano_usd,
        "next": next_step(seen.view),
    }


def print_history(seen: CallSeen) -> None:
    """Print a table of the attempts, of the submissions, and of what operators did; none that would be empty."""
    history, subs = seen.history, seen.history.submissions
    if history.attempts:
        _print_apart(ATTEMPTS, [_attempt_row(attempt) for attempt in history.attempts])
    if subs.lines:
        _print_apart(SUBMISSIONS, [_submission_row(line, seen.view) for line in subs.lines])
        if subs.total > len(subs.lines):
            print_note(f"these are the first {len(subs.lines)} of {subs.total} submissions")
    if history.actions:
        rows = [(a.at, a.action, a.by.operator, a.by.reason) for a in history.actions]
        _print_apart(ACTIONS, rows)


def fingerprint_of(view: CallView) -> str | None:
    """What `--fingerprint` finds this call by; None if it did not fail, or if its error is no failure."""
    return _fingerprint(view.error, view) if view.state in _FINGERPRINTED else None


def tokens_text(usage: Usage | None) -> str:
    """Tokens in and out for people. A usage that the provider did not report is unknown, not 0."""
    return f"{usage.input_tokens} + {usage.output_tokens}" if usage else "unknown"


def price_label(attempt: AttemptView) -> str:
    """Whose price is shown: the worker that settles an attempt need not be the one that sent it."""
    if attempt.status in (AttemptStatus.SUCCEEDED, AttemptStatus.FAILED):
        return "settled at"
    return "held at"


def _fingerprint(error: str | None, view: CallView) -> str | None:
    try:
        return Failure.from_json(error or "").fingerprint(view.provider)
    except (ValueError, KeyError, TypeError):
        return None


def _print_apart(columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    print()  # noqa: T201 - a line between the parts of an answer
    print_table(columns, rows, "")


def _attempt_row(attempt: Attempt) -> tuple[object, ...]:
    a = attempt.view
    posted = "" if a.posted_nano_usd is None else usd(a.posted_nano_usd)
    if attempt.settled_by_hand_at:
        posted += " by hand"
    price = f"{price_label(a)} {a.price_source}" if a.price_source else ""
    latency = "" if a.latency_ms is None else f"{a.latency_ms} ms"
    tokens = tokens_text(a.usage) if a.status.is_posted else ""
    return (
        *(a.attempt, a.attempt_id, a.kind, a.status, a.started_at, a.worker_id),
        *(a.credential or "the provider's", latency, tokens, usd(a.hold_nano_usd), posted, price),
        *(", ".join(a.anomalies), error_text(a.error)),
    )


def _attempt_fields(attempt: Attempt, view: CallView) -> dict[str, Any]:
    of_view = {f.name: getattr(attempt.view, f.name) for f in fields(AttemptView)}
    del of_view["reply"]
    return {
        **of_view,
        "error": parse_error(attempt.view.error),
        "error_fingerprint": _fingerprint(attempt.view.error, view),
        "posted_at": attempt.posted_at,
        "settled_by_hand_at": attempt.settled_by_hand_at,
        "reply_bytes": attempt.reply_bytes,
    }


def _submission_row(line: SubmissionLine, view: CallView) -> tuple[object, ...]:
    return line.at, line.outcome, line.idempotency_key or "", _link_text(line, view)


def _link_text(line: SubmissionLine, view: CallView) -> str:
    if line.delivered_at:
        return f"told {cell_text(line.delivered_at)}"
    if line.given_up_at:
        return f"given up after {line.tries} tries: {line.failure or ''}"
    if line.failure:
        again = f", again at {cell_text(line.try_at)}" if line.try_at else ""
        return f"failed{again}: {line.failure}"
    if not line.has_link:
        return ""
    return "to be told when it ends" if view.state.is_open else "to be told"
