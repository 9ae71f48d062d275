"""`callgate providers`: what each provider of the catalogue can do, and a call that tries one."""

from __future__ import annotations

from typing import Annotated

import typer

from callgate.cli.checkout import worker_credentials
from callgate.cli.options import AsJson, ModelName, parse_name
from callgate.cli.output import client_of, print_fields, print_json, print_table
from callgate.services.providers import ProviderLine, list_providers

COLUMNS = (
    *("!provider", "protocol", "preset", "!verified", "endpoint", "json schema", "tools"),
    *("tiers", "cannot", "key"),
)
NONE = "the catalogue has no provider"
UNVERIFIED = "unverified"
CHECK_TIMEOUT_S = 120.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    providers = typer.Typer(no_args_is_help=True, help="Show what providers can do, and try one.")
    providers.command("list")(list_all)
    providers.command("check")(check)
    app.add_typer(providers, name="providers")


def list_all(context: typer.Context, as_json: AsJson = False) -> None:
    """
    List the providers of the catalogue. Nothing is sent.

    A preset is unverified until a recording of the real provider comes with callgate.

    JSON: an array of provider, protocol, preset, verified (a day, or null), endpoint, json_schema, tools, tiers, cannot
    and key.
    """
    from callgate.adapters.catalogue_file import recordings

    with client_of(context) as client:
        lines = list_providers(client.catalogue, recordings(), worker_credentials(client))
    if as_json:
        print_json(lines)
        return
    print_table(COLUMNS, map(_row, lines), NONE)


def check(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", parser=parse_name, help="The provider.")],
    organisation: Annotated[
        str,
        typer.Option("--organisation", "--org", parser=parse_name, help="Whose budget pays."),
    ],
    model: ModelName,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", min=1, max=3_600, help="How long to wait for its end.")
    ] = CHECK_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """
    Try a provider with a small call, which a worker sends and the organisation pays.

    Exit 1 if no answer came.

    JSON: task_id, outcome (succeeded, or an error's code), message, cost_usd, latency_ms, attempts, input_tokens,
    output_tokens and price_source.
    """
    with client_of(context) as client:
        found = client.provider_checks.check(name, model, organisation, timeout_s)
    if as_json:
        print_json(found)
    else:
        print_fields(
            {
                "call": found.task_id,
                "outcome": found.outcome,
                "message": found.message or None,
                "cost": f"{found.cost_usd} USD",
                "latency": None if found.latency_ms is None else f"{found.latency_ms} ms",
                "attempts": found.attempts,
                "tokens": _tokens(found.input_tokens, found.output_tokens),
                "price": found.price_source,
            }
        )
    if not found.is_good:
        raise typer.Exit(1)


def _tokens(input_tokens: int | None, output_tokens: int | None) -> str | None:
    return None if input_tokens is None else f"{input_tokens} in, {output_tokens} out"


def _row(line: ProviderLine) -> tuple[object, ...]:
    return (
        line.provider,
        line.protocol,
        line.preset or "",
        line.verified or UNVERIFIED,
        line.endpoint or "the protocol's",
        line.json_schema,
        "yes" if line.tools else "no",
        ", ".join(line.tiers),
        ", ".join(line.cannot),
        line.key,
    )
