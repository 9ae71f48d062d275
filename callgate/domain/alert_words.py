"""What an alert says to people: one sentence, and what to do. The doctor says the same words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from callgate.domain.alerts import Alert, AlertKind
from callgate.domain.budgets import CALL_TYPE_SCOPE, usd
from callgate.domain.causes import whose
from callgate.domain.remedies import Concerns, redrive_todo, remedy_of
from callgate.domain.times import minute_of

BY_HAND = (
    "An operator opened it: `callgate breakers close` when its reason is gone (`callgate breakers list`);"
    " the calls that wait are sent then."
)
SILENT = (
    "Look at the named process: if it is there and frozen, kill it; if it is gone, find out why (memory, node,"
    " deployment). Its calls are taken over by another worker."
)
SAME = (
    "Finish the upgrade, or give all workers and clients the same CALLGATE_CATALOGUE and settings, and restart those"
    " that differ (`callgate doctor` says which are as here)."
)
TODOS = {
    AlertKind.KEY_BLOCKED: "Declare the provider's limits, or ask it for more; see docs/flow-control.md.",
    AlertKind.UNKNOWN_MONEY: "Settle with the provider's bill: `callgate unknown list`.",
    AlertKind.DRIFT: "Run `callgate audit`, and report what it finds.",
    AlertKind.LEASE_LOST: SILENT,
    AlertKind.WORKERS_DIFFER: SAME,
    AlertKind.QUEUE_AGE: "See whether workers are alive and have room: `callgate doctor`.",
    AlertKind.TEST: "Nothing: alerts arrive.",
}
"""What to do about kinds whose alerts need no other words."""


def words_of(alert: Alert) -> str:
    """The sentence. It is written from names and figures only."""
    detail = {**alert.detail, "subject": alert.subject, "at": alert.at}
    match alert.kind:
        case AlertKind.BUDGET_THRESHOLD:
            return _budget(detail)
        case AlertKind.BREAKER_OPEN:
            return _breaker(detail)
        case AlertKind.UNKNOWN_MONEY:
            return f"Unknown bills have posted ${detail['value']:.2f} together."
        case AlertKind.DRIFT:
            return f"Budgets differ by ${detail['value']:.9f} from the rows of their attempts."
        case AlertKind.QUEUE_AGE:
            return f"A call has been queued for {detail['value']:.0f} s."
        case AlertKind.LEASE_LOST:
            return _lost(detail)
        case AlertKind.WORKERS_DIFFER:
            return _differ(detail)
        case _:
            since = minute_of(_moment(detail.get("since") or detail["at"]))
            return _SENTENCES[alert.kind].format(**{**detail, "since": since})


def todo_of(alert: Alert) -> str:
    """What to do about it, with the exact commands."""
    match alert.kind:
        case AlertKind.BUDGET_THRESHOLD:
            return _budget_todo(alert)
        case AlertKind.BREAKER_OPEN:
            return _breaker_todo(alert.detail)
        case AlertKind.DEAD_LETTERS:
            return f"Find the common failure: `callgate dead-letters summary --org {alert.org_id}`. {redrive_todo()}"
        case AlertKind.FROZEN:
            return f"When the reason has gone: `callgate unfreeze {alert.org_id} --reason ...`."
        case _:
            return TODOS[alert.kind]


def opened_todo(reason: str | None, about: Concerns, *, is_by_hand: bool) -> str:
    """What to do about an open breaker."""
    return BY_HAND if is_by_hand else remedy_of(reason or "", about)


_SENTENCES = {
    AlertKind.KEY_BLOCKED: "{provider} blocks the key for {model} because of its rate, since {since}.",
    AlertKind.DEAD_LETTERS: "{per_hour} calls of {subject} died within an hour.",
    AlertKind.FROZEN: "{subject} is frozen by {operator}: {reason}",
    AlertKind.TEST: "This is a test by {operator}.",
}


def _breaker(detail: dict[str, Any]) -> str:
    org_id = "" if detail["calls_of"] == "all" else detail["calls_of"]
    reason = "opened by an operator" if detail["reason"] == "operator" else detail["reason"]
    cause = f" ({detail['cause']})" if detail.get("cause") else ""
    concerned = whose(detail["reason"], detail["credential"], org_id)
    since = minute_of(_moment(detail["since"]))
    return f"Calls of {detail['subject']} wait since {since}: {reason}{cause}. It concerns {concerned}."


def _breaker_todo(detail: dict[str, Any]) -> str:
    reason = detail["reason"]
    about = Concerns(
        detail["provider"],
        detail["model"],
        detail["credential"],
        fingerprint=detail.get("fingerprint") or "",
        is_open=True,
    )
    return opened_todo(reason, about, is_by_hand=reason == "operator")


def _budget(detail: dict[str, Any]) -> str:
    spent, held, limit = (usd(detail[f"{name}_nano_usd"]) for name in ("spent", "held", "limit"))
    return (
        f"{detail['percent']} % of the budget {detail['subject']} are used: {spent} spent and {held} held of {limit},"
        f" until {minute_of(_moment(detail['ends_at']))}."
    )


def _budget_todo(alert: Alert) -> str:
    """A call is rejected or waits, as its submitter said (`on_budget`)."""
    detail = alert.detail
    of_type = detail["scope"].partition(CALL_TYPE_SCOPE)[2]
    type_option = f" --call-type {of_type}" if of_type else ""
    per = "daily" if detail["window"] == "day" else "monthly"
    command = f"`callgate budgets set {alert.org_id}{type_option} --{per}-usd ... --reason ...`"
    if detail["percent"] < 100:
        return (
            "Nothing, unless more is to be spent in this period: a call is refused if it may cost more than what is"
            f" left. To raise the limit: {command}."
        )
    ends_at = minute_of(_moment(detail["ends_at"]))
    return (
        f"Raise the limit: {command}; calls that wait are sent then. Else calls with on_budget=wait wait for the next"
        f" period, from {ends_at} on. Others are rejected (`callgate calls list --org {alert.org_id} --state rejected`)"
        " and must be submitted again."
    )


def _lost(detail: dict[str, Any]) -> str:
    since = minute_of(_moment(detail["since"])) if detail.get("since") else "an unknown time"
    return f"The worker process {detail['subject']} does not renew its lease since {since}. Its calls were taken over."


def _differ(detail: dict[str, Any]) -> str:
    count, named = detail["count"], detail["workers"]
    more = f" and {count - len(named)} more" if count > len(named) else ""
    differ = "differs" if count == 1 else "differ"
    tie = (
        " Those others may be the wrong ones: they are as few."
        if 2 * count == detail["alive"]
        else ""
    )
    return (
        f"{count} of {detail['alive']} workers {differ} from the others in {', '.join(detail['differ'])}:"
        f" {', '.join(named)}{more}.{tie}"
    )


def _moment(value: str | datetime) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
