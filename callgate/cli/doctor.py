"""`callgate doctor`: is everything there that a call needs?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from callgate.cli.output import AsJson, client_of, one_line, print_json
from callgate.domain.budgets import usd
from callgate.domain.calls import CallKey
from callgate.domain.errors import (
    CallgateError,
    ConfigurationError,
    InvalidRequest,
    LedgerUnavailable,
    NotPermitted,
    UnknownProvider,
)
from callgate.domain.requests import LLMRequest, Message
from callgate.domain.unknown import UnknownFilter

if TYPE_CHECKING:
    from callgate.client import Client

T = TypeVar("T")
ASKED_OF_THE_BROKER = ("rights", "consumers")
"""Checks that have nothing to say while the broker does not answer."""
SAMPLE_MODEL = "openai/gpt-4o-mini"
REDIS_MIN = 7
QUIET_SETTINGS: dict[str, tuple[str, ...]] = {
    "log_min_error_statement": ("panic",),
    "log_statement": ("none", "ddl"),
    "log_min_duration_statement": ("-1",),
    "log_min_duration_sample": ("-1",),
    "log_transaction_sample_rate": ("0",),
    "auto_explain.log_min_duration": ("-1",),
}
"""What keeps prompts and answers out of Postgres' own log (docs/security.md); the first of each is what to set."""
LOG_SETTINGS = (
    "SELECT name, current_setting(name, true) AS value FROM unnest(%(names)s::text[]) AS name"
)
UNKNOWN_COUNTED_MAX = 1_000
DATABASE_REMEDY = "check CALLGATE_DATABASE_URL, and that Postgres runs"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    check: str
    ok: bool
    detail: str
    is_warning: bool = False
    """Calls run all the same."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="PROVIDER/MODEL", help="Whose price to look for."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check settings, database, broker, prices, tokenizer, transport; exit 1 if one is amiss, 2 if settings are."""
    findings = list(_findings(context, model))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            verdict = "WARN" if finding.is_warning else "OK  " if finding.ok else "FAIL"
            print(f"{verdict} {finding.check}: {one_line(finding.detail)}")  # noqa: T201 - the answer
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1 if findings[0].ok else 2)


def _findings(context: typer.Context, asked: str | None) -> Iterator[Finding]:
    try:
        client = client_of(context)
    except ConfigurationError as exc:
        yield Finding("settings", False, str(exc))
        return
    with client:
        yield Finding("settings", True, "valid")
        yield Finding("catalogue", True, _catalogue(client))
        model = asked or _any_model(client)
        checks: dict[str, Callable[[], str]] = {
            "database": lambda: _database(client),
            "schema": lambda: _schema(client),
            "broker": lambda: _broker(client),
            "rights": lambda: _rights(client),
            "consumers": lambda: _consumers(client),
            "tokenizer": lambda: _tokenizer(client, model),
            "price": lambda: _price(client, model),
            "transport": lambda: _transport(client),
        }
        failed: set[str] = set()
        for name, check in checks.items():
            if name in ASKED_OF_THE_BROKER and "broker" in failed:
                continue
            try:
                yield Finding(name, True, check())
                if name == "database":
                    yield _server_log(client)
                if name == "schema":
                    yield from _attention(client)
                if name == "broker":
                    yield _item_size(client)
            except CallgateError as exc:
                failed.add(name)
                remedy = f": {DATABASE_REMEDY}" if isinstance(exc, LedgerUnavailable) else ""
                yield Finding(name, False, f"{exc}{remedy}")


def _any_model(client: Client) -> str:
    """A model to look for where nobody named one; without a provider there is none."""
    rows = [f"{row.provider}/{row.model}" for row in client.catalogue.prices]
    known = [m for m in (SAMPLE_MODEL, *rows) if m.partition("/")[0] in client.catalogue.providers]
    return known[0] if known else SAMPLE_MODEL


def _catalogue(client: Client) -> str:
    path = client.settings.catalogue
    providers = ", ".join(sorted(client.catalogue.providers))
    return f"{path or 'the defaults (CALLGATE_CATALOGUE is not set)'}; providers: {providers}"


def _database(client: Client) -> str:
    from callgate.adapters.postgres.version import VERSION, major_version

    ((number,),) = _asked(client, VERSION, {})
    return f"Postgres {major_version(number)} answers"


def _server_log(client: Client) -> Finding:
    """What this login is told; the server may say otherwise to another."""
    rows = _asked(client, LOG_SETTINGS, {"names": list(QUIET_SETTINGS)})
    loud = [
        (row.name, row.value) for row in rows if row.value not in (None, *QUIET_SETTINGS[row.name])
    ]
    if not loud:
        return Finding("server log", True, "Postgres keeps statements, and so prompts, out of it")
    remedies = ", ".join(
        f"{name} = {QUIET_SETTINGS[name][0]} (it is {value})" for name, value in loud
    )
    return Finding("server log", True, f"Postgres may write prompts into it: set {remedies}", True)


def _asked(client: Client, sql: str, parameters: dict[str, Any]) -> list[Any]:
    from callgate.adapters.postgres.session import PostgresSession

    settings = client.settings
    session = PostgresSession(
        settings.database_url.get_secret_value(), timeout_s=settings.ledger_timeout_s, pool_size=1
    )
    try:
        return list(session.rows(sql, parameters))
    finally:
        session.close()


def _schema(client: Client) -> str:
    # Clients and workers may read calls; none but a worker may ask what is due.
    try:
        list(client.ledger.read([CallKey(UUID(int=0), 1)]))
    except NotPermitted as exc:
        # A dashboard may read costs and budgets, and is as it should be; a login of no role may do neither.
        try:
            client.operations.budgets("doctor")
        except NotPermitted:
            raise exc from None
        return "migrated; this login reads costs and states as a dashboard does, and submits or runs no call"
    return "migrated"


def _broker(client: Client) -> str:
    from callgate.domain.errors import BrokerUnavailable

    give_up_after_s = client.settings.broker_timeout_s
    with client.celery_app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=give_up_after_s)
        except Exception as exc:
            # Each transport has errors of its own; all of them mean that the broker is not usable.
            raise BrokerUnavailable(
                f"{connection.as_uri()} cannot be used ({exc or type(exc).__name__}):"
                " check CALLGATE_BROKER_URL, and that the broker runs"
            ) from exc
        if (version := _redis_version(connection)) and version[0] < REDIS_MIN:
            raise ConfigurationError(
                f"{connection.as_uri()} is Redis {version[0]}: workers take messages with BLMPOP, which Redis"
                f" {REDIS_MIN} has, and Valkey"
            )
        return f"{connection.as_uri()} answers"


def _item_size(client: Client) -> Finding:
    """Whether the broker keeps what none of its readers would read; not whether it may be asked for its settings."""
    from callgate.adapters.broker.bounds import ITEM_BYTES_MAX
    from callgate.adapters.broker.consumers import takes_items_of

    try:
        takes_more = takes_items_of(client.celery_app, ITEM_BYTES_MAX + 1)
    except Exception as exc:
        # As in `_broker`.
        return Finding("item size", True, f"not known ({type(exc).__name__})", True)
    if not takes_more:
        return Finding("item size", True, "the broker refuses items of more than 1 MiB")
    remedy = "set proto-max-bulk-len to 1mb, so that nobody can fill its memory and its readers' time with a few"
    return Finding("item size", True, f"the broker takes items of more than 1 MiB: {remedy}", True)


def _rights(client: Client) -> str:
    from callgate.adapters.broker.consumers import CLIENT_COMMANDS, refused_command

    if refused := _of_broker(lambda: refused_command(client.celery_app, CLIENT_COMMANDS)):
        raise ConfigurationError(
            f"the user of CALLGATE_BROKER_URL may not run {refused}: docs/security.md lists what it needs"
        )
    return "the user of CALLGATE_BROKER_URL may publish"


def _consumers(client: Client) -> str:
    from callgate.adapters.broker.consumers import consumers

    found = _of_broker(lambda: consumers(client.celery_app))
    if foreign := [f"{c.name} ({', '.join(c.queues)})" for c in found if not c.is_ours]:
        raise ConfigurationError(
            f"no worker of callgate, but takes its messages: {'; '.join(foreign)}. What it takes is lost until a sweep"
            " finds it: stop it, or give it queues of its own"
        )
    return f"{len(found)} workers of callgate answer, and no foreign one"


def _of_broker(ask: Callable[[], T]) -> T:
    from callgate.domain.errors import BrokerUnavailable

    try:
        return ask()
    except Exception as exc:
        # As in `_broker`.
        raise BrokerUnavailable(f"the broker did not answer: {type(exc).__name__}: {exc}") from exc


def _redis_version(connection: Any) -> list[int] | None:
    """Nothing where an ACL forbids INFO, or a proxy answers in its own way."""
    try:
        said = connection.default_channel.client.info("server")
        return [int(part) for part in said["redis_version"].split(".")]
    except Exception:
        # Whatever it raises: that the broker answers was seen before, and who does not say its version is not refused.
        return None


def _sample(client: Client, model: str) -> LLMRequest:
    provider, slash, name = model.partition("/")
    if not slash:
        raise InvalidRequest(f"{model!r} is not PROVIDER/MODEL")
    if provider not in client.catalogue.providers:
        raise UnknownProvider(
            f"the catalogue has no provider {provider!r}: give --model PROVIDER/MODEL of one it has, or add a table"
            f" [providers.{provider}]"
        )
    try:
        return LLMRequest(
            org_id="doctor",
            call_type="doctor",
            provider=provider,
            model=name,
            messages=(Message(role="user", content="Hello"),),
            max_output_tokens=1_000,
        )
    except ValueError as exc:
        raise InvalidRequest(f"{name!r} cannot be the name of a model") from exc


def _tokenizer(client: Client, model: str) -> str:
    from callgate.adapters.token_estimator import TokenEstimator

    method = TokenEstimator(client.catalogue).input_bound(_sample(client, model)).method
    return f"{model}: {method}"


def _price(client: Client, model: str) -> str:
    from callgate.adapters.cost_calculator import CostCalculator

    costs, request = CostCalculator(client.catalogue), _sample(client, model)
    priced = costs.worst_case(request, 1_000, datetime.now(UTC))
    return f"{model}: {priced.price_source}"


def _transport(client: Client) -> str:
    from callgate.adapters.providers.openai.environment import check_environment

    check_environment(client.catalogue.providers)
    return "requests can leave a worker with this environment"


def _attention(client: Client) -> Iterator[Finding]:
    """What waits for an operator: calls go on all the same, or wait for that."""
    checks: dict[str, Callable[[], tuple[str, bool]]] = {
        "breakers": lambda: _breakers(client),
        "unknown bills": lambda: _unknown_bills(client),
    }
    for name, look in checks.items():
        try:
            detail, is_warning = look()
            yield Finding(name, True, detail, is_warning)
        except NotPermitted:
            yield Finding(name, True, "not for this login to see")
        except CallgateError as exc:
            yield Finding(name, False, str(exc))


def _breakers(client: Client) -> tuple[str, bool]:
    opened = [b for b in client.operations.breakers() if b.is_open]
    told = [
        f"{'/'.join(filter(None, (b.provider, b.model, b.credential)))}{f' for {b.org_id}' if b.org_id else ''}"
        f" since {b.changed_at:%Y-%m-%d %H:%M} UTC"
        f" ({b.reason}; {b.waiting} calls wait)"
        for b in opened
    ]
    if not told:
        return "none is open", False
    return f"open: {', '.join(told)}; see `callgate breakers list`", True


def _unknown_bills(client: Client) -> tuple[str, bool]:
    bills = client.operations.unknown_bills(UnknownFilter(), limit=UNKNOWN_COUNTED_MAX)
    if not bills:
        return "none", False
    least = "at least " if len(bills) == UNKNOWN_COUNTED_MAX else ""
    held = usd(sum(bill.posted_nano_usd for bill in bills))
    return f"{least}{len(bills)} attempts hold {held}; see `callgate unknown summary`", True
