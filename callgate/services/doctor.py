"""
Check whether everything is there that a call needs.

A finding is the value of a check: its name, whether it is fine, and one sentence. The checks of a database and of a
broker are in their adapters. This module runs all checks, and has those that need the ports only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from callgate.domain.budgets import usd
from callgate.domain.calls import CallKey
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import (
    CallgateError,
    InvalidRequest,
    LedgerUnavailable,
    NotPermitted,
    UnknownProvider,
)
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.pauses import Pause
from callgate.domain.ports import CostCalculatorPort, LedgerPort
from callgate.domain.provider import TokenBound
from callgate.domain.reports import BreakerLine
from callgate.domain.requests import LLMRequest, Message
from callgate.domain.unknown import UnknownFilter

SAMPLE_MODEL = "openai/gpt-4o-mini"
SAMPLE_TOKENS = 1_000
UNKNOWN_COUNTED_MAX = 1_000
DATABASE_REMEDY = "check CALLGATE_DATABASE_URL, and that Postgres runs"
NOT_FOR_THIS_LOGIN = "this login may not see them"


class FindingStatus(StrEnum):
    """Whether calls can run."""

    OK = "ok"
    WARN = "warn"
    """Calls run, but an operator should look at this."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    name: str
    status: FindingStatus
    sentence: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a check found."""

    sentence: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """Looks at one thing."""

    name: str
    look: Callable[[], str | Seen | None]
    """Says what it found; None if there is nothing to say yet. Raises a `CallgateError` if no call can run."""
    needs: str | None = None
    """The name of the check that must not have failed before this one runs."""


def run_checks(checks: Sequence[Check]) -> Iterator[Finding]:
    """Run checks in their order. A failure skips only the checks that need it."""
    failed: set[str] = set()
    for check in checks:
        if check.needs in failed:
            continue
        try:
            seen = check.look()
        except CallgateError as exc:
            failed.add(check.name)
            remedy = f": {DATABASE_REMEDY}" if isinstance(exc, LedgerUnavailable) else ""
            yield Finding(check.name, FindingStatus.FAIL, f"{exc}{remedy}")
            continue
        if seen is None:
            continue
        if isinstance(seen, str):
            seen = Seen(seen)
        status = FindingStatus.WARN if seen.is_warning else FindingStatus.OK
        yield Finding(check.name, status, seen.sentence)


def ledger_checks(ledger: LedgerPort, operations: OperationsPort) -> list[Check]:
    """Checks of the ledger: its schema, and what waits for an operator."""
    return [
        Check("schema", lambda: _schema(ledger, operations)),
        Check("pauses", lambda: _pauses(operations), needs="schema"),
        Check("breakers", lambda: _breakers(operations), needs="schema"),
        Check("limits", lambda: _limits(operations), needs="schema"),
        Check("unknown bills", lambda: _unknown_bills(operations), needs="schema"),
    ]


def model_checks(
    catalogue: Catalogue,
    model: str | None,
    *,
    input_bound: Callable[[LLMRequest], TokenBound],
    costs: CostCalculatorPort,
    now: datetime,
) -> list[Check]:
    """Checks of one model: how its tokens are counted, and its price."""
    name = model or _known_model(catalogue)

    def tokenizer() -> str:
        return f"{name}: {input_bound(_sample(catalogue, name)).method}"

    def price() -> str:
        priced = costs.worst_case(_sample(catalogue, name), SAMPLE_TOKENS, now)
        return f"{name}: {priced.price_source}"

    return [Check("tokenizer", tokenizer), Check("price", price)]


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
    try:
        pauses = [_pause(p) for p in operations.pauses()]
    except NotPermitted:
        return Seen(NOT_FOR_THIS_LOGIN)
    if not pauses:
        return Seen("nothing is paused")
    return Seen(f"{', '.join(pauses)}; see `callgate pauses`", is_warning=True)


def _pause(p: Pause) -> str:
    state = "frozen" if p.key.is_freeze else "paused"
    since = f"{p.at:%Y-%m-%d %H:%M} UTC"
    return f"{state}: {p.key} since {since} ({p.by.reason}; {p.waiting} calls wait)"


def _breakers(operations: OperationsPort) -> Seen:
    try:
        opened = [_breaker(b) for b in operations.breakers() if b.is_open]
    except NotPermitted:
        return Seen(NOT_FOR_THIS_LOGIN)
    if not opened:
        return Seen("none is open")
    return Seen(f"open: {', '.join(opened)}; see `callgate breakers list`", is_warning=True)


def _limits(operations: OperationsPort) -> Seen | None:
    """Whether all workers declare the same provider limits; None if none has declared any yet."""
    try:
        publishers = operations.limit_publishers()
    except NotPermitted:
        return Seen(NOT_FOR_THIS_LOGIN)
    others = [p.worker_id for p in publishers if not p.is_current]
    if others:
        sentence = "the newest catalogue counts; other limits are declared by"
        return Seen(f"{sentence} {', '.join(others)}", is_warning=True)
    return Seen(f"{len(publishers)} workers declare the same") if publishers else None


def _breaker(b: BreakerLine) -> str:
    name = "/".join(filter(None, (b.provider, b.model, b.credential)))
    whose = f" for {b.org_id}" if b.org_id else ""
    since = f"{b.changed_at:%Y-%m-%d %H:%M} UTC"
    return f"{name}{whose} since {since} ({b.reason}; {b.waiting} calls wait)"


def _unknown_bills(operations: OperationsPort) -> Seen:
    try:
        bills = operations.unknown_bills(UnknownFilter(), limit=UNKNOWN_COUNTED_MAX)
    except NotPermitted:
        return Seen(NOT_FOR_THIS_LOGIN)
    if not bills:
        return Seen("none")
    least = "at least " if len(bills) == UNKNOWN_COUNTED_MAX else ""
    held = usd(sum(bill.posted_nano_usd for bill in bills))
    sentence = f"{least}{len(bills)} attempts hold {held}; see `callgate unknown summary`"
    return Seen(sentence, is_warning=True)


def _known_model(catalogue: Catalogue) -> str:
    """A model of the catalogue; the sample if the catalogue has no provider."""
    rows = [f"{row.provider}/{row.model}" for row in catalogue.prices]
    known = [m for m in (SAMPLE_MODEL, *rows) if m.partition("/")[0] in catalogue.providers]
    return known[0] if known else SAMPLE_MODEL


def _sample(catalogue: Catalogue, model: str) -> LLMRequest:
    provider, slash, name = model.partition("/")
    if not slash:
        raise InvalidRequest(f"{model!r} is not PROVIDER/MODEL")
    if provider not in catalogue.providers:
        raise UnknownProvider(
            f"the catalogue has no provider {provider!r}: give --model PROVIDER/MODEL of a provider it has, or add a"
            f" table [providers.{provider}]"
        )
    try:
        return LLMRequest(
            org_id="doctor",
            call_type="doctor",
            provider=provider,
            model=name,
            messages=(Message(role="user", content="Hello"),),
            max_output_tokens=SAMPLE_TOKENS,
        )
    except ValueError as exc:
        raise InvalidRequest(f"{name!r} cannot be the name of a model") from exc
