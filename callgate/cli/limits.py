"""`callgate limits`: what providers and operators allow, what is used of it, and who waits."""

from __future__ import annotations

import typer

from callgate.cli.options import AsJson, Model, ModelName, Provider, ProviderName
from callgate.cli.output import client_of, print_json, print_table
from callgate.services.limits import KeyLine, list_limits

COLUMNS = (
    *("model", "key", "limit", "source", ">amount", ">used", ">free", "!blocked until"),
    *("why", "waiting"),
)
NONE = "no limits: none is declared, and no provider has named one yet"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    limits = typer.Typer(no_args_is_help=True, help="Show the limits of providers.")
    limits.command("list")(list_all)
    limits.command("show")(show)
    app.add_typer(limits, name="limits")


def list_all(
    context: typer.Context, provider: Provider = None, model: Model = None, as_json: AsJson = False
) -> None:
    """
    List the limits of providers, the breakers that are open, and how many calls of organisations may run at a time.

    Each with how much is used, and which calls wait.

    `used` and `free` are parts of what may be used at once, which is less than the whole limit.

    JSON: an array of model, credential, what, source, amount, used, free, blocked_until, why and waiting.
    """
    _print(context, provider, model, as_json)


def show(
    context: typer.Context, provider: ProviderName, model: ModelName, as_json: AsJson = False
) -> None:
    """
    Show the limits and the breakers of one model.

    JSON: as `limits list`.
    """
    _print(context, provider, model, as_json)


def _print(context: typer.Context, provider: str | None, model: str | None, as_json: bool) -> None:
    with client_of(context) as client:
        lines = list_limits(client.operations, provider, model)
    if as_json:
        print_json(lines)
        return
    print_table(COLUMNS, map(_row, lines), NONE)


def _row(line: KeyLine) -> tuple[object, ...]:
    waiting = ", ".join(f"{org}: {calls}" for org, calls in line.waiting.items())
    numbers = ("" if n is None else f"{n:g}" for n in (line.used, line.free))
    return (
        line.model or "all",
        "all" if line.credential is None else line.credential or "the provider's",
        line.what,
        line.source,
        "" if line.amount is None else line.amount,
        *numbers,
        line.blocked_until or "",
        line.why or "",
        waiting,
    )
