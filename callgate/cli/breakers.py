"""`callgate breakers`: which providers are left alone for a while, and opening and closing that by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from callgate.cli.actions import Operator, Reason, by_of
from callgate.cli.output import (
    AsJson,
    Model,
    Provider,
    client_of,
    name,
    print_fields,
    print_json,
    print_table,
    say,
)
from callgate.domain.errors import InvalidRequest, UnknownProvider
from callgate.domain.reports import BreakerLine

OfProvider = Annotated[str, typer.Option("--provider", parser=name)]
OfModel = Annotated[str, typer.Option("--model", parser=name)]
Credential = Annotated[
    str | None,
    typer.Option(
        "--credential",
        parser=name,
        metavar="ORG",
        help="Of the key that is this organisation's own; else of the provider's key.",
    ),
]
Org = Annotated[
    str | None,
    typer.Option("--org", parser=name, help="Of this organisation's calls; else of everybody's."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    breakers = typer.Typer(no_args_is_help=True, help="Providers that are left alone for a while.")
    breakers.command("list")(list_breakers)
    breakers.command("open")(open_breaker)
    breakers.command("close")(close_breaker)
    app.add_typer(breakers, name="breakers")


def list_breakers(
    context: typer.Context, provider: Provider = None, model: Model = None, as_json: AsJson = False
) -> None:
    """List breakers, and how many calls wait for each."""
    with client_of(context) as client:
        lines = client.operations.breakers()
    lines = [b for b in lines if provider in (None, b.provider) and model in (None, b.model)]
    if as_json:
        print_json(lines)
        return
    columns = (
        *("model", "key", "calls of", "!breaker", ">failures", ">waiting", "!since", "!next probe"),
        "reason",
    )
    print_table(columns, map(_row, lines), "no breakers: nothing was called yet")


def open_breaker(
    context: typer.Context,
    provider: OfProvider,
    model: OfModel,
    reason: Reason,
    credential: Credential = None,
    org: Org = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Leave a provider's model alone, until somebody closes the breaker again; calls wait unpaid."""
    key = provider, model, credential or "", org or ""
    with client_of(context) as client:
        is_new = key not in map(_key, client.operations.breakers())
        if is_new and provider not in client.catalogue.providers:
            raise UnknownProvider(f"neither the catalogue nor a call has a provider {provider!r}")
        by = by_of(client, operator, reason)
        line = client.operations.set_breaker(*key, is_open=True, by=by)
    if is_new:
        say(f"no call has asked for {_about(line)} yet: see that its name is right")
    _print(line, as_json)


def close_breaker(
    context: typer.Context,
    provider: OfProvider,
    model: OfModel,
    reason: Reason,
    credential: Credential = None,
    org: Org = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Call a provider's model again; all calls that wait for it are released. Without --org, of every organisation."""
    key = provider, model, credential or "", org or ""
    with client_of(context) as client:
        if key not in map(_key, client.operations.breakers()):
            raise InvalidRequest(f"there is no breaker of {'/'.join(filter(None, key))}")
        by = by_of(client, operator, reason)
        line = client.operations.set_breaker(*key, is_open=False, by=by)
    _print(line, as_json)


def _print(line: BreakerLine, as_json: bool) -> None:
    if as_json:
        print_json(line)
        return
    print_fields(
        {
            "breaker": _about(line),
            "state": _state(line),
            "reason": line.reason,
            "calls waiting": line.waiting,
        }
    )


def _row(b: BreakerLine) -> tuple[object, ...]:
    probe = b.probe_at or ("when closed by hand" if b.is_open else "")
    model = f"{b.provider}/{b.model}"
    counts = b.failures, b.waiting
    return (
        model,
        _whose(b),
        b.org_id or "everybody",
        _state(b),
        *counts,
        b.changed_at,
        probe,
        b.reason or "",
    )


def _state(b: BreakerLine) -> str:
    return "open" if b.is_open else "closed"


def _whose(b: BreakerLine) -> str:
    return b.credential or "the provider's"


def _about(b: BreakerLine) -> str:
    with_key = f" with the key of {b.credential}" if b.credential else ""
    whose = f" for {b.org_id}" if b.org_id else ""
    return f"{b.provider}/{b.model}{with_key}{whose}"


def _key(b: BreakerLine) -> tuple[str, str, str, str]:
    return b.provider, b.model, b.credential, b.org_id
