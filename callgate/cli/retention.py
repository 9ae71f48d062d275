"""`callgate purge`: remove the bodies of ended calls now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from callgate.cli.output import AsJson, Org, Yes, client_of, confirm, print_json, say
from callgate.domain.calls import CallState
from callgate.domain.catalogue import DAY_S
from callgate.domain.errors import OrgNotFound
from callgate.domain.reports import CallFilter
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
    """
    Remove the requests and replies of calls that ended long enough ago; the accounting stays.

    Exit 1 if ended calls of the organisation are old enough, and could not be purged yet.
    """
    with client_of(context) as client:
        ages = _ages(client, org, older_than_days)
        # Before anything is gone: a login that may not count could not say what it left.
        kept = Kept() if org is None else _kept(client, org, ages)
        counted = client.retention.purge(ages, limit=COUNTED_MAX, dry_run=True)
        if org is not None and counted == Purged():
            _refuse_unknown(client, org)
        purged = Purged()
        if not dry_run and counted != Purged():
            confirm(f"Remove the bodies of {_about(counted)}?", yes)
            purged = _purge(client, ages)
            kept = Kept() if org is None else _kept(client, org, ages)
    told = counted if dry_run else purged
    is_complete = (
        max(counted.calls, counted.unprocessable_messages) < COUNTED_MAX
        if dry_run
        else not kept.old
    )
    if as_json:
        counts = {
            "calls": told.calls,
            "unprocessable_messages": told.unprocessable_messages,
            "open_calls_spared": kept.open,
        }
        # Purged calls are not all that an organisation has: some are younger, in use, or have somebody to tell.
        counts |= {"calls_with_bodies": kept.calls} if org else {}
        print_json({"dry_run": dry_run, **counts, "is_complete": is_complete})
    else:
        say(f"{'would purge' if dry_run else 'purged'}: {_about(told)}")
        _say_kept(kept, dry_run)
    if not dry_run and not is_complete:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Kept:
    """Calls of an organisation that still have their bodies."""

    calls: int = 0
    open: int = 0
    old: int = 0
    """Ended, and as old as was asked for: in use, or with a link to deliver or a late answer to settle."""


def _kept(client: Client, org: str, ages: BodyAges) -> Kept:
    age_s = ages.by_org_s[org]
    old = client.retention.old_calls_with_bodies(org, age_s)
    return Kept(client.retention.calls_with_bodies(org), _open_calls(client, org), old)


def _say_kept(kept: Kept, dry_run: bool) -> None:
    if kept.open:
        say(f"spared: {kept.open} open calls; purge again when they have ended")
    if kept.old and not dry_run:
        say(
            f"left: {kept.old} ended calls still have their bodies: they are in use, have a link to deliver, or a late"
            " answer to settle; purge again later"
        )


def _refuse_unknown(client: Client, org: str) -> None:
    """Whoever misspelt what must be erased should not read that all is well."""
    if not client.operations.calls(CallFilter(org), limit=1):
        raise OrgNotFound(f"the ledger has no call of an organisation {org!r}")


def _ages(client: Client, org: str | None, days: int | None) -> BodyAges:
    declared = client.catalogue.retention.body_ages()
    ages = declared if days is None else BodyAges(default_s=days * DAY_S)
    ages = ages if org is None else ages.only(org)
    if ages.is_unlimited:
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
    more = "at least " if max(counted.calls, counted.unprocessable_messages) >= COUNTED_MAX else ""
    unprocessable_messages = (
        f" and {counted.unprocessable_messages} stray messages"
        if counted.unprocessable_messages
        else ""
    )
    return f"{more}{counted.calls} calls{unprocessable_messages}"
