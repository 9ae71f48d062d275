"""`callgate purge`: remove the bodies of ended calls now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from callgate.cli_output import AsJson, Org, Yes, client_of, confirm, print_json, say
from callgate.domain.catalogue import DAY_S
from callgate.domain.errors import OrgNotFound
from callgate.domain.ledger import CallState
from callgate.domain.operations import CallFilter
from callgate.domain.retention import BodyAges, Purged
from callgate.services.retention import RetentionService

if TYPE_CHECKING:
    from callgate.client import Client

COUNTED_MAX = 10_000
"""Calls a dry run counts, and open calls of an organisation."""
DAYS_MAX = 36_500


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(purge)


def purge(
    context: typer.Context,
    org: Org = None,
    older_than_days: Annotated[
        int | None,
        typer.Option(
            "--older-than-days",
            min=0,
            max=DAYS_MAX,
            help="Since the end of the call. Without it: what the catalogue declares.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove the requests and replies of calls that ended long enough ago; the accounting stays."""
    with client_of(context) as client:
        ages = _ages(client, org, older_than_days)
        counted = client.retention.purge(ages, limit=COUNTED_MAX, dry_run=True)
        if org is not None and counted == Purged():
            _refuse_unknown(client, org)
        purged = Purged()
        if not dry_run and counted != Purged():
            confirm(f"Remove the bodies of {_about(counted)}?", yes)
            purged = _purge(client, ages)
        spared = _open_calls(client, org) if org else 0
        left = client.retention.calls_with_bodies(org) if org else None
    told = counted if dry_run else purged
    if as_json:
        counts = {"calls": told.calls, "strays": told.strays, "open_calls_spared": spared}
        # Purged calls are not all that an organisation has: some are younger, in use, or have somebody to tell.
        counts |= {} if left is None else {"calls_with_bodies": left}
        is_complete = not dry_run or max(counted.calls, counted.strays) < COUNTED_MAX
        print_json({"dry_run": dry_run, **counts, "is_complete": is_complete})
        return
    say(f"{'would purge' if dry_run else 'purged'}: {_about(told)}")
    if spared:
        say(f"spared: {spared} open calls; purge again when they have ended")
    if left is not None and left > spared and not dry_run:
        say(
            f"left: {left - spared} ended calls still have their bodies: they are younger, in use, or have a link to"
            " deliver; purge again later"
        )


def _refuse_unknown(client: Client, org: str) -> None:
    """Whoever misspelt what must be erased should not read that all is well."""
    if not client.operations.calls(CallFilter(org), limit=1):
        raise OrgNotFound(f"the ledger has no call of an organisation {org!r}")


def _ages(client: Client, org: str | None, days: int | None) -> BodyAges:
    declared = client.catalogue.retention.body_ages()
    ages = declared if days is None else BodyAges(default_s=days * DAY_S)
    ages = ages if org is None else ages.only(org)
    if ages.keeps_everything:
        raise typer.BadParameter(
            "the catalogue declares no retention here: give --older-than-days, or a [retention] table"
        )
    return ages


def _purge(client: Client, ages: BodyAges) -> Purged:
    service = RetentionService(client.retention, client.catalogue.retention)
    total = Purged()
    while (part := service.purge(ages)) != Purged():
        total += part
    return total


def _open_calls(client: Client, org: str) -> int:
    states = [state for state in CallState if state.is_open]
    return sum(
        len(client.operations.calls(CallFilter(org, state), limit=COUNTED_MAX)) for state in states
    )


def _about(counted: Purged) -> str:
    more = "at least " if max(counted.calls, counted.strays) >= COUNTED_MAX else ""
    strays = f" and {counted.strays} stray messages" if counted.strays else ""
    return f"{more}{counted.calls} calls{strays}"
