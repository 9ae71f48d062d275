"""
The audit's figures of a ledger of any size: bounded statements, and smaller ones if the ledger's timeout is short.

Each budget and each day is read at one moment. Counts of calls are exact while nothing changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple
from datetime import date
from typing import Any

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import AttemptStatus
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.reports import BudgetDrift, Snapshot

BOUNDS = "SELECT * FROM callgate_audit_bounds_v1()"
BUDGETS = "SELECT * FROM callgate_audit_budgets_v1(%(since)s, %(until)s)"
CALLS = "SELECT * FROM callgate_audit_calls_v1(%(since)s, %(until)s)"
SUMS = "SELECT * FROM callgate_audit_sums_v1(%(since)s, %(until)s)"
BUDGETS_AT_ONCE = 10_000
PAGES_AT_ONCE = 50_000
"""400 MB of calls."""
DAYS_AT_ONCE = 92
TRIES = 3
"""Of the smallest part."""
Ask = Callable[[int, int], list[Any]]


def read_snapshot(session: PostgresSession) -> Snapshot:
    """
    Read the figures and sums.

    Raises:
        LedgerUnavailable: The ledger is away, or even the smallest part takes too long.
    """
    (bounds,) = session.answers(BOUNDS, {})
    states: Counter[str] = Counter()
    statuses: Counter[str] = Counter(bounds.attempts)
    dead_letters, spent, broken_seals = bounds.unprocessable, 0, 0
    for row in _calls(session, bounds.pages):
        states[row.state] += row.calls
        dead_letters += row.dead_letters
    for row in _sums(session, bounds.first_day, bounds.until_day):
        spent += row.posted_nano_usd
        broken_seals += row.broken_seals
        if row.outcome is not None:
            statuses[row.outcome] += row.attempts
    return Snapshot(
        at=bounds.at,
        budgets=_budgets(session, bounds.budgets_until),
        calls_by_state=dict(states),
        attempts_by_status=dict(+statuses),
        dead_letters=dead_letters,
        spent_nano_usd=spent,
        unknown_attempts=statuses[AttemptStatus.UNKNOWN.value],
        broken_seals=broken_seals,
        gaps=bounds.gaps,
    )


def in_parts(ask: Ask, since: int, until: int, at_once: int) -> Iterator[Any]:
    """
    Ask for all of a range, so much at once; in halves where that takes longer than the ledger's timeout.

    What was too much once is not tried again. A busy ledger may refuse even one now and then.

    Raises:
        LedgerUnavailable: One is too much as well.
    """
    refused = 0
    while since < until:
        end = min(until, since + at_once)
        try:
            rows = ask(since, end)
        except LedgerUnavailable:
            refused += end - since == 1
            if refused == TRIES:
                raise
            at_once = max(1, (end - since) // 2)
            continue
        refused = 0
        yield from rows
        since = end


def _budgets(session: PostgresSession, until: int) -> tuple[BudgetDrift, ...]:
    rows = in_parts(_asking(session, BUDGETS), 0, until, BUDGETS_AT_ONCE)
    drifts = (BudgetDrift(*row) for row in rows)
    return tuple(sorted(drifts, key=lambda drift: astuple(drift)[1:5]))


def _calls(session: PostgresSession, pages: int) -> Iterator[Any]:
    """Of pages that came meanwhile too: the last part has no end."""
    ask = _asking(session, CALLS)
    yield from in_parts(ask, 0, pages, PAGES_AT_ONCE)
    yield from session.answers(CALLS, {"since": pages, "until": None})


def _sums(session: PostgresSession, first: date | None, until: date | None) -> Iterator[Any]:
    if first is None or until is None:
        return iter(())
    ask = _asking(session, SUMS)

    def of_days(since: int, end: int) -> list[Any]:
        return ask(date.fromordinal(since), date.fromordinal(end))

    return in_parts(of_days, first.toordinal(), until.toordinal(), DAYS_AT_ONCE)


def _asking(session: PostgresSession, sql: str) -> Callable[[Any, Any], list[Any]]:
    return lambda since, until: session.answers(sql, {"since": since, "until": until})
