"""Checks of the ledger: its schema, and what waits for an operator."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from callgate.domain.alert_words import opened_todo
from callgate.domain.budgets import usd
from callgate.domain.calls import CallKey
from callgate.domain.causes import whose
from callgate.domain.errors import NotPermitted
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.pauses import Pause
from callgate.domain.ports import LedgerPort
from callgate.domain.remedies import Concerns
from callgate.domain.reports import BreakerLine
from callgate.domain.times import minute_of
from callgate.domain.unknown import UnknownFilter
from callgate.services.doctor import NAMED_MAX, Check, Seen, named, warning

UNKNOWN_COUNTED_MAX = 1_000


def ledger_checks(ledger: LedgerPort, operations: OperationsPort) -> list[Check]:
    """Checks of the ledger: its schema, and what waits for an operator."""

    def check(name: str, look: Callable[[OperationsPort], Seen | None]) -> Check:
        return Check(name, lambda: look(operations), needs="schema", may_be_hidden=True)

    return [
        Check("schema", lambda: _schema(ledger, operations)),
        check("pauses", _pauses),
        check("breakers", _breakers),
        check("limits", _limits),
        check("unknown bills", _unknown_bills),
    ]


def _schema(ledger: LedgerPort, operations: OperationsPort) -> str:
    # Clients and workers may read calls; only a worker may ask which calls are due.
    try:
        list(ledger.read([CallKey(UUID(int=0), 1)]))
    except NotPermitted as exc:
        # A dashboard's login may read budgets; a login without any role may not.
        try:
            operations.budgets("doctor")
        except NotPermitted:
            raise exc from None
        return "migrated; this login reads costs and states, as a dashboard does, and cannot submit or run a call"
    return "migrated"


def _pauses(operations: OperationsPort) -> Seen:
    pauses = operations.pauses()
    if not pauses:
        return Seen("nothing is paused")
    return warning(named([_pause(p) for p in pauses]))


def _pause(p: Pause) -> str:
    state = "frozen" if p.key.is_freeze else "paused"
    return f"{state}: {p.key} since {minute_of(p.at)} ({p.by.reason}; {p.waiting} calls wait)"


def _breakers(operations: OperationsPort) -> Seen:
    opened = [b for b in operations.breakers() if b.is_open]
    if not opened:
        return Seen("none is open")
    opened.sort(key=lambda b: -b.waiting)
    todos = dict.fromkeys(_breaker_todo(b) for b in opened[:NAMED_MAX])
    return warning(f"open: {named([_breaker(b) for b in opened])}", " ".join(todos))


def _breaker(b: BreakerLine) -> str:
    name = "/".join(filter(None, (b.provider, b.model)))
    reason = "opened by an operator" if b.probe_at is None else b.reason
    cause = f": {b.cause}" if b.cause else ""
    concerned = whose(b.reason, b.credential, b.org_id)
    waiting = f"{b.waiting} calls wait"
    return f"{name} since {minute_of(b.changed_at)} ({reason}; {concerned}; {waiting}){cause}"


def _breaker_todo(b: BreakerLine) -> str:
    fingerprint = b.error_fingerprint or ""
    about = Concerns(b.provider, b.model, b.credential, fingerprint=fingerprint, is_open=True)
    return opened_todo(b.reason, about, is_by_hand=b.probe_at is None)


def _limits(operations: OperationsPort) -> Seen | None:
    """Whether all workers declare the same provider limits; None if none has declared any yet."""
    publishers = operations.limit_publishers()
    others = [p.worker_id for p in publishers if not p.is_current]
    if others:
        sentence = "the newest catalogue counts; other limits are declared by"
        return warning(f"{sentence} {named(others)}")
    return Seen(f"{len(publishers)} workers declare the same") if publishers else None


def _unknown_bills(operations: OperationsPort) -> Seen:
    bills = operations.unknown_bills(UnknownFilter(), limit=UNKNOWN_COUNTED_MAX)
    if not bills:
        return Seen("none")
    least = "at least " if len(bills) == UNKNOWN_COUNTED_MAX else ""
    held = usd(sum(bill.posted_nano_usd for bill in bills))
    return warning(f"{least}{len(bills)} attempts hold {held}")
