"""`callgate retention`: remove the bodies of ended calls now."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from callgate.cli.options import AsJson, DryRun, Org, Yes
from callgate.cli.output import client_of, confirm, print_json, print_note
from callgate.domain.retention import Purged
from callgate.services.purge import COUNTED_MAX, PurgePlan, PurgeReport

DAYS_MAX = 36_500


def register(app: typer.Typer) -> None:
    """Add the commands."""
    retention = typer.Typer(no_args_is_help=True, help="Remove bodies; the accounting stays.")
    retention.command()(purge)
    app.add_typer(retention, name="retention")


def purge(
    context: typer.Context,
    org: Org = None,
    older_than_days: Annotated[
        int | None,
        typer.Option(
            "--older-than-days",
            min=0,
            max=DAYS_MAX,
            help="Days since the end of the call. Without it: what the catalogue declares.",
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """
    Remove the requests and replies of calls that ended long enough ago; the accounting stays.

    Without --org the calls of every organisation are purged.

    Purged dead letters cannot be redriven: the question says how many they are.

    Exit 1 if nothing is old enough, or if calls of the organisation are and could not be purged yet.

    JSON: dry_run, calls, dead_letters (how many of them), unprocessable_messages, open_calls_spared, is_complete; with
    --org also calls_with_bodies.
    """
    with client_of(context) as client:
        ages = client.purges.ages(org, days=older_than_days)
        if ages.is_unlimited:
            raise typer.BadParameter(
                "the catalogue declares no retention here: give --older-than-days, or add a [retention] table"
            )
        plan = client.purges.plan(ages, org)
        if dry_run:
            _print(plan, plan, as_json)
        else:
            if plan.found != Purged():
                confirm(f"Remove the bodies of {_count_text(plan.found, plan.dead_letters)}?", yes)
            report = client.purges.carry_out(plan)
            _print(plan, report, as_json)
    if plan.found == Purged() or not (dry_run or report.is_complete):
        raise typer.Exit(1)


def _print(plan: PurgePlan, result: PurgePlan | PurgeReport, as_json: bool) -> None:
    is_dry_run, remaining = isinstance(result, PurgePlan), result.remaining
    counted = result.found if isinstance(result, PurgePlan) else result.purged
    if as_json:
        payload: dict[str, Any] = {
            "dry_run": is_dry_run,
            "calls": counted.calls,
            "dead_letters": plan.dead_letters,
            "unprocessable_messages": counted.unprocessable_messages,
            "open_calls_spared": remaining.open if remaining else 0,
        }
        if remaining:
            # Also counts calls that are too young, in use, or have a link to deliver.
            payload["calls_with_bodies"] = remaining.with_bodies
        print_json({**payload, "is_complete": result.is_complete})
        return
    if plan.found == Purged():
        print_note("nothing is old enough to be purged, or what is old enough is in use")
    else:
        what = _count_text(counted, plan.dead_letters)
        print_note(f"{'would purge' if is_dry_run else 'purged'}: {what}")
    if remaining and remaining.open:
        print_note(f"spared: {remaining.open} open calls; purge again when they have ended")
    if remaining and remaining.ended and not is_dry_run:
        print_note(
            f"left: {remaining.ended} ended calls still have their bodies, because they are in use, have a link to"
            " deliver, or an attempt to settle; purge again later"
        )


def _count_text(counted: Purged, dead_letters: int) -> str:
    most = max(counted.calls, counted.unprocessable_messages)
    least = "at least " if most >= COUNTED_MAX else ""
    messages = counted.unprocessable_messages
    more = f" and {messages} unprocessable messages" if messages else ""
    dead = f", {dead_letters} of them dead letters, which cannot be redriven then,"
    return f"{least}{counted.calls} calls{dead if dead_letters else ''}{more}".rstrip(",")
