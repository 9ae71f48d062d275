"""`callgate dead-letters`: list and group dead letters, redrive or discard them."""

from __future__ import annotations

import socket
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from callgate.cli.actions import system_user
from callgate.cli.call_ids import CallIds, call_ids_of
from callgate.cli.call_output import (
    CALL_COLUMNS,
    call_fields,
    dead_call_rows,
    error_text,
    parse_error,
    print_call,
)
from callgate.cli.calls import TaskId
from callgate.cli.options import AsJson, Limit, Reason, Yes, call_filter, with_options
from callgate.cli.output import (
    at_most,
    client_of,
    confirm,
    more_than,
    print_json,
    print_note,
    print_table,
)
from callgate.cli.redrive_start import redrive
from callgate.cli.unknown_names import point_out
from callgate.domain.calls import Bodies, CallKey, CallState
from callgate.domain.errors import CallNotFound, NotPermitted
from callgate.domain.reports import By, CallFilter, UnprocessableMessage
from callgate.services.dead_letters import DISCARDED_MAX, SCANNED_MAX

if TYPE_CHECKING:
    from callgate.client import Client


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
    with client_of(context) as client:
        call_filter = replace(call_filter, call_ids=call_ids_of(client, ids))
        views, is_cut = at_most(client.dead_letters.find(call_filter, limit=limit + 1), limit)
        messages = _unprocessable(client, limit) if call_filter == CallFilter() else []
        if not views:
            point_out(client, call_filter.org_id, call_filter.call_type)
    if as_json:
        unprocessable = [
            {"at": at, "queue": m.queue, "reason": m.reason, "raw": m.raw} for at, m in messages
        ]
        calls = [call_fields(view) for view in views]
        print_json({"calls": calls, "unprocessable_messages": unprocessable})
        return
    print_table((*CALL_COLUMNS, "error"), dead_call_rows(views), "no dead calls")
    if is_cut:
        print_note(more_than(limit))
    if messages:
        rows = [(at, m.queue, m.reason) for at, m in messages]
        print_table(("!unprocessable message at", "!queue", "reason"), rows, "")


def show(context: typer.Context, task_id: TaskId, as_json: AsJson = False) -> None:
    """
    Show one dead call with its request and its last reply.

    JSON: one call as in `calls show --bodies`.
    """
    with client_of(context) as client:
        seen = client.calls.details(task_id, Bodies.BOTH, datetime.now(UTC))
    if seen.view.state is not CallState.DEAD:
        raise CallNotFound(f"no dead letter: {seen.view.key.task_id} is {seen.view.state}")
    print_call(seen, as_json=as_json)


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
        groups = client.operations.dead_groups(call_filter)
    if as_json:
        print_json([{**asdict(g), "sample_error": parse_error(g.sample_error)} for g in groups])
        return
    rows = [
        (g.error_fingerprint, g.count, g.model, g.first_at, g.last_at, error_text(g.sample_error))
        for g in groups
    ]
    columns = ("!fingerprint", ">calls", "model", "!first", "!last", "error")
    print_table(columns, rows, "no dead calls")


@with_options(call_filter=call_filter)
def discard(
    context: typer.Context,
    call_filter: CallFilter,
    reason: Reason,
    ids: CallIds = None,
    calls_max: Max = DISCARDED_MAX,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """
    Discard dead calls: they become rejected; who did it and why is stored with them. Exit 1 if none was discarded.

    JSON: discarded, an array of task ids.
    """
    discarded: list[CallKey] = []
    with client_of(context) as client:
        call_filter = replace(call_filter, call_ids=call_ids_of(client, ids))
        views = client.dead_letters.find(call_filter, limit=calls_max)
        if not views:
            point_out(client, call_filter.org_id, call_filter.call_type)
        else:
            confirm(f"Discard {len(views)} calls?", yes)
            by = By(f"{system_user()}@{socket.gethostname()}", reason)
            discarded = client.discards.discard([view.key for view in views], by=by)
    if as_json:
        print_json({"discarded": [key.task_id for key in discarded]})
    else:
        print_note(
            f"discarded: {len(discarded)} of {len(views)} calls"
            if views
            else "no dead letter matches, nothing was discarded"
        )
    if not discarded:
        raise typer.Exit(1)


def _unprocessable(client: Client, limit: int) -> list[tuple[datetime, UnprocessableMessage]]:
    """These messages belong to no organisation, so a client's login may not see them; its dead calls it may."""
    try:
        return client.operations.unprocessable_messages(limit=limit)
    except NotPermitted as exc:
        print_note(f"without unprocessable messages: {exc}")
        return []
