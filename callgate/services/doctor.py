"""
Check whether everything is there that a call needs.

A check is a value: its name, whether it is fine, and one sentence. What looks at a database or a broker is a probe of
an adapter; this module runs the probes, and holds those that need no more than the ports.
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


class CheckStatus(StrEnum):
    """Whether calls can run."""

    OK = "ok"
    WARN = "warn"
    """Calls run, but somebody should look at this."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor."""

    name: str
    status: CheckStatus
    sentence: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a probe found."""

    sentence: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """Looks at one thing."""

    name: str
    look: Callable[[], str | Seen | None]
    """Says what it found; None if there is nothing to say yet. Raises a `CallgateError` if no call can run."""
    needs: str | None = None
    """The probe without which this one has nothing to look at."""


def run_probes(probes: Sequence[Probe]) -> Iterator[Check]:
    """Run probes in their order; a failure does not hide the checks that do not depend on it."""
    failed: set[str] = set()
    for probe in probes:
        if probe.needs in failed:
            continue
        try:
            seen = probe.look()
        except CallgateError as exc:
            failed.add(probe.name)
            remedy = f": {DATABASE_REMEDY}" if isinstance(exc, LedgerUnavailable) else ""
            yield Check(probe.name, CheckStatus.FAIL, f"{exc}{remedy}")
            continue
        if seen is None:
            continue
        if isinstance(seen, str):
            seen = Seen(seen)
        status = CheckStatus.WARN if seen.is_warning else CheckStatus.OK
        yield Check(probe.name, status, seen.sentence)


def ledger_probes(ledger: LedgerPort, operations: OperationsPort) -> list[Probe]:
    """Probes of the ledger: its schema, and what waits for an operator."""
    return [
        Probe("schema", lambda: _schema(ledger, operations)),
        Probe("breakers", lambda: _breakers(operations), needs="schema"),
        Probe("unknown bills", lambda: _unknown_bills(operations), needs="schema"),
    ]


def model_probes(
    catalogue: Catalogue,
    model: str | None,
    *,
    input_bound: Callable[[LLMRequest], TokenBound],
    costs: CostCalculatorPort,
    now: datetime,
) -> list[Probe]:
    """Probes of one model: how its tokens are counted, and its price."""
    name = model or _known_model(catalogue)

    def tokenizer() -> str:
        return f"{name}: {input_bound(_sample(catalogue, name)).method}"

    def price() -> str:
        priced = costs.worst_case(_sample(catalogue, name), SAMPLE_TOKENS, now)
        return f"{name}: {priced.price_source}"

    return [Probe("tokenizer", tokenizer), Probe("price", price)]


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


def _breakers(operations: OperationsPort) -> Seen:
    try:
        opened = [_breaker(b) for b in operations.breakers() if b.is_open]
    except NotPermitted:
        return Seen(NOT_FOR_THIS_LOGIN)
    if not opened:
        return Seen("none is open")
    return Seen(f"open: {', '.join(opened)}; see `callgate breakers list`", is_warning=True)


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
