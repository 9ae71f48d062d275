"""How calls are printed: as rows, as fields, as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from callgate.cli.call_history import (
    history_fields,
    price_label,
    print_history,
    summary_fields,
    tokens_text,
)
from callgate.cli.output import cell_text, print_fields, print_json
from callgate.domain.budgets import usd
from callgate.domain.calls import AttemptView, CallView, WaitReason
from callgate.domain.delivery import LinkFailure
from callgate.domain.stored_errors import error_text, parse_error
from callgate.services.call_details import CallSeen
from callgate.services.waiting import Outlook

_GIVEN_UP = (
    WaitReason.PROVIDER,
    WaitReason.RATE_LIMITED,
    WaitReason.CONCURRENCY_LIMITED,
    WaitReason.PAUSED,
)
"""Who waits for these is rejected when due, if what it waits for has not come before."""
CALL_COLUMNS = ("!call", "!state", "created", "org", "type", "model", ">cost")


def call_row(view: CallView) -> tuple[object, ...]:
    """A call as a row under `CALL_COLUMNS`."""
    what = view.created_at, view.org_id, view.call_type, view.model
    return view.key.task_id, view.state, *what, usd(view.posted_nano_usd)


def dead_call_rows(views: Sequence[CallView]) -> Iterable[Sequence[object]]:
    """Dead calls as rows under `CALL_COLUMNS` and `error`."""
    for view in views:
        yield *call_row(view), (parse_error(view.error) or {}).get("code", "")


def call_fields(view: CallView) -> dict[str, Any]:
    """One call as JSON; amounts are nano-USD. Bodies are included if they were read."""
    fields = {"task_id": view.key.task_id, **_without_bodies(view)}
    fields["end_reason"] = view.end_reason
    fields["input_hash"] = view.input_hash.hex()
    fields["priority"] = view.priority.name.lower()
    fields["error"] = parse_error(view.error)
    if view.request is not None:
        fields["request"] = parse_body(view.request)
    if view.last is not None:
        fields["last"] = {**_without_bodies(view.last), "error": parse_error(view.last.error)}
        if view.last.reply is not None:
            fields["last"]["reply"] = parse_body(view.last.reply)
    return fields


def print_call(seen: CallSeen, *, as_json: bool) -> None:
    """Print everything about one call: about when it can be sent, each attempt, who asked for it, what comes next."""
    view, failures, outlook = seen.view, seen.link_failures, seen.outlook
    if as_json:
        payload = {**call_fields(view), **history_fields(seen)}
        if outlook.earliest_at:
            payload["earliest_at"] = outlook.earliest_at
        if outlook.ahead:
            payload["ahead"] = dataclasses.asdict(outlook.ahead)
            payload["places"] = [dataclasses.asdict(line) for line in outlook.places]
        if failures:
            payload["link_failures"] = [dataclasses.asdict(f) for f in failures]
        print_json(payload)
        return
    print_fields(
        {
            "call": view.key.task_id,
            "state": view.state,
            "org": view.org_id,
            "call type": view.call_type,
            "model": f"{view.provider}/{view.model}",
            "class": view.priority.name.lower(),
            "created": view.created_at,
            "deadline": view.start_before and f"to be sent before {cell_text(view.start_before)}",
            "waits for": wait_text(view, outlook.earliest_at) or None,
            **_outlook_fields(view, outlook),
            "end reason": view.end_reason,
            "due": view.due_at,
            "attempts": f"{view.attempt} ({view.worker_losses} lost)",
            "cost": usd(view.posted_nano_usd),
            "error": error_text(view.error) or None,
            **summary_fields(seen),
            "links": _links_text(failures) or None,
            **(_attempt_fields(view.last) if view.last else {}),
            "bodies": "purged" if view.is_purged else None,
            "request": view.request and view.request.decode(errors="replace"),
            "reply": view.last and view.last.reply and view.last.reply.decode(errors="replace"),
        }
    )
    print_history(seen)


def parse_body(body: bytes) -> object:
    """A stored request or reply; as text if it is not JSON, because an operator may look for just that."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")


def wait_text(view: CallView, next_at: datetime | None = None) -> str:
    """
    Why a call waits, when it is tried next, and what happens in the end; empty if it does not wait.

    Args:
        next_at: About when it is tried next, if that is before it is due.
    """
    if not view.wait_reason:
        return ""
    parts = [str(view.wait_reason)]
    parts += [f"tried next about {cell_text(next_at)}"] if next_at else []
    word = "given up at" if view.wait_reason in _GIVEN_UP else "tried again at"
    return ", ".join([*parts, f"{word} {cell_text(view.due_at)}"])


def _outlook_fields(view: CallView, outlook: Outlook) -> dict[str, object]:
    """When it can be sent, or what is before it."""
    at, ahead = outlook.earliest_at, outlook.ahead
    before = ahead and (
        f"{ahead.of_organisation} calls of {view.org_id} that wait for the same,"
        f" {ahead.of_call_type} of them {view.call_type}"
    )
    places = (f"{x.running} of {x.amount} {x.call_type or x.org_id} calls" for x in outlook.places)
    return {
        "earliest": at and f"about {cell_text(at)}",
        "before it": before or None,
        "running": ", ".join(places) or None,
    }


def _attempt_fields(last: AttemptView) -> dict[str, object]:
    key_owner = f"{last.credential}'s own" if last.credential else "the provider's"
    return {
        "tokens": tokens_text(last.usage) if last.status.is_posted else None,
        "flags": ", ".join(last.anomalies) or None,
        "last attempt": f"{last.attempt} {last.status}, id {last.attempt_id}",
        "made": f"as a {last.kind}, with {key_owner} key",
        "sent by": f"worker {last.worker_id}",
        "latency": f"{last.latency_ms} ms" if last.latency_ms is not None else None,
        price_label(last): last.price_source,
        "provider's id": last.provider_request_id,
    }


def _links_text(failures: Sequence[LinkFailure]) -> str:
    """How many links could not be delivered, whether they are tried again, and why."""
    counts = Counter(
        ("given up" if f.given_up_at else "to be tried again", f.why) for f in failures
    )
    return "; ".join(f"{n} {fate}: {why}" for (fate, why), n in counts.items())


def _without_bodies(value: Any) -> dict[str, Any]:
    """The fields of a dataclass without bytes and nested values."""
    return {
        field.name: item
        for field in dataclasses.fields(value)
        if not isinstance(item := getattr(value, field.name), bytes)
        and field.name not in ("key", "last", "broken", "request", "reply")
    }
