"""`callgate redrives`: list, show, start, pause, resume and abort stored redrives."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from callgate.cli.actions import by_of
from callgate.cli.options import AsJson, Limit, Operator, Reason
from callgate.cli.output import client_of, print_json, print_note, print_table
from callgate.cli.redrive_output import (
    Cap,
    Rate,
    RedriveId,
    print_redrive,
    progress_of,
    redrive_fields,
    state_of,
)
from callgate.cli.redrive_start import start
from callgate.domain.budgets import usd
from callgate.domain.redrives import Redrive, RedriveCall, RedriveOutcome


def register(app: typer.Typer) -> None:
    """Add the commands."""
    redrives = typer.Typer(
        no_args_is_help=True, help="Watch, start, pause, resume and abort redrives."
    )
    redrives.command("list")(list_redrives)
    redrives.command()(show)
    redrives.command()(start)
    redrives.command()(pause)
    redrives.command()(resume)
    redrives.command()(abort)
    app.add_typer(redrives, name="redrives")


def list_redrives(context: typer.Context, limit: Limit = 20, as_json: AsJson = False) -> None:
    """
    List redrives, newest first.

    JSON: an array of redrives as in `redrives show`, without calls and organisations.
    """
    with client_of(context) as client:
        redrives = client.redrives.newest(limit=limit)
    if as_json:
        print_json([redrive_fields(redrive) for redrive in redrives])
        return
    columns = ("!redrive", "!planned", "!state", ">calls", ">left", ">failed", ">spent", "by")
    rows = [
        (r.redrive_id, r.created_at, state_of(r), r.calls, r.counts.pending,
         r.counts.failed_again, usd(r.posted_nano_usd), r.by.operator if r.by else r.planned_by)
        for r in redrives
    ]  # fmt: skip
    print_table(columns, rows, "no redrives")


def show(
    context: typer.Context,
    redrive: RedriveId,
    outcome: Annotated[
        RedriveOutcome | None, typer.Option("--outcome", help="Only calls with this outcome.")
    ] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """
    Show a redrive, and what became of each of its calls.

    JSON: redrive_id, state, cause, reason, operator, counts, amounts, terms; organisations; calls, an array of number,
    task_id, outcome, code, next_task_id and amounts.
    """
    with client_of(context) as client:
        seen = client.redrives.get(redrive)
        orgs = client.redrives.orgs_of(redrive)
        calls = client.redrives.calls_of(redrive, outcome, limit=limit)
    if as_json:
        fields = redrive_fields(seen)
        print_json({**fields, "organisations": orgs, "calls": [_call_fields(c) for c in calls]})
        return
    print_redrive(seen)
    rows = [
        (c.number, c.key.task_id, c.org_id, c.outcome, c.code or "",
         c.new_generation or "", usd(c.posted_nano_usd or 0))
        for c in calls
    ]  # fmt: skip
    columns = (">n", "!call", "org", "!outcome", "why", ">generation", ">cost")
    print_table(columns, rows, "no calls with this outcome")


def pause(
    context: typer.Context,
    redrive: RedriveId,
    reason: Reason,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Release no more calls for now. Those that are released go on.

    JSON: the redrive as in `redrives show`, without calls and organisations.
    """
    with client_of(context) as client:
        _print_changed(
            client.redrives.pause(redrive, by_of(client, operator, reason)), as_json=as_json
        )


def resume(
    context: typer.Context,
    redrive: RedriveId,
    reason: Reason,
    rate_per_min: Rate = None,
    cap: Cap = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Go on with a paused redrive. Failures of before do not count any more.

    JSON: the redrive as in `redrives show`, without calls and organisations.
    """
    with client_of(context) as client:
        terms = client.redrives.get(redrive).terms
        if rate_per_min is not None:
            terms = replace(terms, rate_per_min=rate_per_min)
        if cap is not None:
            terms = replace(terms, cap_nano_usd=cap)
        by = by_of(client, operator, reason)
        _print_changed(client.redrives.resume(redrive, by, terms), as_json=as_json)


def abort(
    context: typer.Context,
    redrive: RedriveId,
    reason: Reason,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    End a redrive. Calls that are not released are left as they are; those that are released go on.

    JSON: the redrive as in `redrives show`, without calls and organisations.
    """
    with client_of(context) as client:
        _print_changed(
            client.redrives.abort(redrive, by_of(client, operator, reason)), as_json=as_json
        )


def _call_fields(call: RedriveCall) -> dict[str, Any]:
    next_key = call.next_key
    fields = asdict(call)
    del fields["key"]
    return {
        "task_id": call.key.task_id,
        "next_task_id": next_key and next_key.task_id,
        **fields,
    }


def _print_changed(redrive: Redrive, *, as_json: bool) -> None:
    if as_json:
        print_json(redrive_fields(redrive))
    else:
        print_note(progress_of(redrive))
