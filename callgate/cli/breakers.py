"""`callgate breakers`: list the breakers of providers, open and close them by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from callgate.cli.actions import by_of
from callgate.cli.options import (
    AsJson,
    Model,
    ModelName,
    Operator,
    Org,
    Provider,
    ProviderName,
    Reason,
    parse_name,
)
from callgate.cli.output import client_of, print_fields, print_json, print_note, print_table
from callgate.domain.reports import BreakerLine
from callgate.services import breakers as services
from callgate.services.breakers import BreakerKey

Credential = Annotated[
    str | None,
    typer.Option(
        "--credential",
        parser=parse_name,
        metavar="ORG",
        help="For calls with this organisation's own key; else for calls with the provider's key.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    breakers = typer.Typer(
        no_args_is_help=True, help="List, open and close the breakers of providers."
    )
    breakers.command("list")(list_breakers)
    breakers.command("open")(open_breaker)
    breakers.command("close")(close_breaker)
    app.add_typer(breakers, name="breakers")


def list_breakers(
    context: typer.Context, provider: Provider = None, model: Model = None, as_json: AsJson = False
) -> None:
    """
    List breakers, and how many calls wait for each.

    JSON: an array of provider, model, credential, org_id, is_open, reason, failures, changed_at, proven_at, probe_at,
    waiting, cause (what exactly failed, where callgate knows it) and error_fingerprint.
    """
    with client_of(context) as client:
        lines = services.list_breakers(client.operations, provider, model)
    if as_json:
        print_json(lines)
        return
    columns = (
        *("model", "key", "calls of", "!breaker", ">failures", ">waiting", "!since", "!next probe"),
        "reason",
    )
    print_table(columns, map(_row, lines), "no breakers: no call was made yet")


def open_breaker(
    context: typer.Context,
    provider: ProviderName,
    model: ModelName,
    reason: Reason,
    credential: Credential = None,
    org: Org = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Stop calls to a provider's model until an operator closes the breaker. The calls wait and cost nothing.

    Without --org the calls of every organisation are stopped.

    JSON: one breaker as in `breakers list`.
    """
    key = BreakerKey(provider, model, credential or "", org or "")
    with client_of(context) as client:
        line, is_new = services.open_breaker(
            client.operations,
            key,
            client.catalogue.providers,
            by=by_of(client, operator, reason),
        )
    if is_new:
        print_note(f"no call has used {_about(line)} yet: check that the name is right")
    _print(line, as_json)


def close_breaker(
    context: typer.Context,
    provider: ProviderName,
    model: ModelName,
    reason: Reason,
    credential: Credential = None,
    org: Org = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Allow calls to a provider's model again, and release the calls that wait for it.

    Without --org the breakers of every organisation are closed; it says whose were open.

    JSON: one breaker as in `breakers list`; closed, an array of those that were open: an organisation, or an empty text
    for the shared one.
    """
    key = BreakerKey(provider, model, credential or "", org or "")
    with client_of(context) as client:
        by = by_of(client, operator, reason)
        closed = services.would_close(client.operations, key)
        line = services.close_breaker(client.operations, key, by=by)
    _print(line, as_json, closed)


def _print(line: BreakerLine, as_json: bool, closed: Sequence[str] | None = None) -> None:
    if as_json:
        print_json(line if closed is None else {**asdict(line), "closed": closed})
        return
    whose = ", ".join(org or "the shared one" for org in closed or ())
    print_fields(
        {
            "breaker": _about(line),
            "state": _state(line),
            "reason": _reason(line) or None,
            "closed now": None if closed is None else whose or "none: none was open",
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
        b.org_id or "shared",
        _state(b),
        *counts,
        b.changed_at,
        probe,
        _reason(b),
    )


def _reason(b: BreakerLine) -> str:
    return f"{b.reason}: {b.cause}" if b.cause else b.reason or ""


def _state(b: BreakerLine) -> str:
    return "open" if b.is_open else "closed"


def _whose(b: BreakerLine) -> str:
    return b.credential or "the provider's"


def _about(b: BreakerLine) -> str:
    with_key = f" with the key of {b.credential}" if b.credential else ""
    whose = f" for {b.org_id}" if b.org_id else ""
    return f"{b.provider}/{b.model}{with_key}{whose}"
