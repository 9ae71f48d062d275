"""`callgate dead-letters`: list and group dead letters, redrive or discard them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from callgate.cli.actions import system_user
from callgate.cli.call_output import (
    CALL_COLUMNS,
    call_fields,
    dead_call_rows,
    error_text,
    parse_error,
    print_call,
)
from callgate.cli.calls import TaskId
from callgate.cli.options import AsJson, DryRun, Limit, Reason, Yes, call_filter, with_options
from callgate.cli.output import client_of, confirm, print_json, print_note, print_table
from callgate.domain.budgets import usd
from callgate.domain.calls import Bodies, CallKey, CallState
from callgate.domain.errors import CallNotFound, NotPermitted
from callgate.domain.reports import By, CallFilter, UnprocessableMessage
from callgate.services.dead_letters import REDRIVEN_MAX, SCANNED_MAX

if TYPE_CHECKING:
    from callgate.client import Client


def parse_call_id(text: str) -> UUID:
    """Parse a call id, or the call id of a task id."""
    try:
        return UUID(text.partition(".")[0])
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a call id or task id") from None


def parse_rate(text: str) -> float:
    """Parse `5`, `5/s` or `0.5/s`."""
    try:
        rate_per_s = float(text.removesuffix("/s"))
    except ValueError:
        rate_per_s = 0.0
    if not 0.01 <= rate_per_s <= 10_000:
        raise typer.BadParameter(f"{text!r} is not a rate from 0.01/s to 10000/s")
    return rate_per_s


CallIds = Annotated[
    list[UUID] | None,
    typer.Option("--id", parser=parse_call_id, metavar="CALL", help="This call; repeatable."),
]
Max = Annotated[int, typer.Option("--max", min=1, max=SCANNED_MAX, help="At most this many calls.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    dead = typer.Typer(no_args_is_help=True, help="List, redrive and discard dead letters.")
    dead.command("list")(list_dead)
    dead.command()(show)
    dead.command()(summary)
    dead.command()(redrive)
    dead.command()(discard)
    app.add_typer(dead, name="dead-letters")


@with_options(call_filter=call_filter)
def list_dead(
    context: typer.Context,
    call_filter: CallFilter,
    ids: CallIds = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """
    List dead calls, newest first; without a filter also the messages that named no call.

    JSON: calls, an array as in `calls list`; unprocessable_messages, an array of at, queue, reason and raw.
    """
    call_filter = _with_ids(call_filter, ids)
    with client_of(context) as client:
        views = client.dead_letters.find(call_filter, limit=limit)
        messages = _unprocessable(client, limit) if call_filter == CallFilter() else []
    if as_json:
        unprocessable = [
            {"at": at, "queue": m.queue, "reason": m.reason, "raw": m.raw} for at, m in messages
        ]
        calls = [call_fields(view) for view in views]
        print_json({"calls": calls, "unprocessable_messages": unprocessable})
        return
    print_table((*CALL_COLUMNS, "error"), dead_call_rows(views), "no dead calls")
    if messages:
        rows = [(at, m.queue, m.reason) for at, m in messages]
        print_table(("!unprocessable message at", "!queue", "reason"), rows, "")


def show(context: typer.Context, task_id: TaskId, as_json: AsJson = False) -> None:
    """
    Show one dead call with its request and its last reply.

    JSON: one call as in `calls show --bodies`.
    """
    with client_of(context) as client:
        view = client.calls.find(task_id, Bodies.BOTH)
    if view.state is not CallState.DEAD:
        raise CallNotFound(f"no dead letter: {view.key.task_id} is {view.state}")
    print_call(view, as_json=as_json)


@with_options(call_filter=call_filter)
def summary(
    context: typer.Context,
    call_filter: CallFilter,
    as_json: AsJson = False,
) -> None:
    """
    Group dead calls by what went wrong, the largest group first.

    JSON: an array of error_fingerprint, provider, model, sample_error, count, first_at and last_at.
    """
    with client_of(context) as client:
        groups = client.operations.dead_groups(_with_ids(call_filter, None))
    if as_json:
        print_json([{**asdict(g), "sample_error": parse_error(g.sample_error)} for g in groups])
        return
    rows = [
        (g.error_fingerprint, g.count, g.model, f"{g.last_at:%m-%d %H:%M}", error_text(g.sample_error))
        for g in groups
    ]  # fmt: skip
    print_table(("!fingerprint", ">calls", "model", "!last", "error"), rows, "no dead calls")


@with_options(call_filter=call_filter)
def redrive(
    context: typer.Context,
    call_filter: CallFilter,
    ids: CallIds = None,
    dry_run: DryRun = False,
    calls_max: Max = REDRIVEN_MAX,
    rate_per_s: Annotated[
        float | None,
        typer.Option(
            "--rate", parser=parse_rate, metavar="N/s", help="At most this many a second."
        ),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """
    Give dead calls another generation, under today's gates, prices and budgets.

    JSON: dry_run, count, redriven (task ids), worst_case_nano_usd, and refused (the reason by task id).
    """
    redriven: tuple[CallKey, ...] = ()
    with client_of(context) as client:
        plan = client.dead_letters.plan(
            _with_ids(call_filter, ids), calls_max=calls_max, rate_per_s=rate_per_s
        )
        refused = plan.left_out
        what = f"{len(plan.calls)} calls, at worst {usd(plan.worst_case_nano_usd)}"
        if not dry_run and plan.calls:
            confirm(f"Redrive {what}?", yes)
            done = client.dead_letters.carry_out(plan)
            redriven, refused = done.keys, done.left_out
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "count": len(plan.calls),
                "redriven": [key.task_id for key in redriven],
                "worst_case_nano_usd": plan.worst_case_nano_usd,
                "refused": _by_task_id(refused),
            }
        )
        return
    print_note(f"would redrive {what}" if dry_run else f"redriven: {len(redriven)} of {what}")
    for task_id, why in _by_task_id(refused).items():
        print_note(f"not {task_id}: {why}")


@with_options(call_filter=call_filter)
def discard(
    context: typer.Context,
    call_filter: CallFilter,
    reason: Reason,
    ids: CallIds = None,
    calls_max: Max = REDRIVEN_MAX,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """
    Discard dead calls: they become rejected; who did it and why is stored with them.

    JSON: discarded, an array of task ids.
    """
    discarded: list[CallKey] = []
    with client_of(context) as client:
        views = client.dead_letters.find(_with_ids(call_filter, ids), limit=calls_max)
        if views:
            confirm(f"Discard {len(views)} calls?", yes)
            by = By(f"{system_user()}@{socket.gethostname()}", reason)
            discarded = client.dead_letters.discard([view.key for view in views], by=by)
    if as_json:
        print_json({"discarded": [key.task_id for key in discarded]})
    else:
        print_note(f"discarded: {len(discarded)} of {len(views)} calls")


def _with_ids(call_filter: CallFilter, ids: list[UUID] | None) -> CallFilter:
    return replace(call_filter, call_ids=tuple(ids or ()))


def _by_task_id(reasons: Mapping[CallKey, str]) -> dict[str, str]:
    return {key.task_id: why for key, why in reasons.items()}


def _unprocessable(client: Client, limit: int) -> list[tuple[datetime, UnprocessableMessage]]:
    """These messages belong to no organisation, so a client's login may not see them; its dead calls it may."""
    try:
        return client.operations.unprocessable_messages(limit=limit)
    except NotPermitted as exc:
        print_note(f"without unprocessable messages: {exc}")
        return []
