"""`callgate dead`: look at dead letters, give them another generation, or discard them."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from callgate.cli.actions import system_user
from callgate.cli.calls import find_call, print_call
from callgate.cli.output import (
    CALL_COLUMNS,
    AsJson,
    CallType,
    Fingerprint,
    Model,
    Org,
    Provider,
    Yes,
    call_fields,
    call_rows,
    client_of,
    confirm,
    error_text,
    loaded,
    print_json,
    print_table,
    say,
)
from callgate.domain.budgets import usd
from callgate.domain.calls import Bodies, CallKey, CallState, CallView
from callgate.domain.errors import CallNotFound, InvalidRequest, NotPermitted
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.reports import CallFilter, EndReason, UnprocessableMessage
from callgate.services.results import request_of

if TYPE_CHECKING:
    from callgate.client import Client

SCANNED_MAX = 10_000
"""Dead calls one command looks at."""
REDRIVEN_MAX = 1_000
BATCH_MAX = 100


def call_uuid(text: str) -> UUID:
    """Parse a call id, or the call id of a task id."""
    try:
        return UUID(text.partition(".")[0])
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no call") from None


def rate_per_s(text: str) -> float:
    """Parse `5`, `5/s` or `0.5/s`."""
    try:
        rate = float(text.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0.01 <= rate <= 10_000:
        raise typer.BadParameter(f"{text!r} is no rate from 0.01/s to 10000/s")
    return rate


CallIds = Annotated[
    list[UUID] | None, typer.Option("--id", parser=call_uuid, metavar="CALL", help="Repeatable.")
]
Max = Annotated[int, typer.Option("--max", min=1, max=SCANNED_MAX, help="At most so many.")]


@dataclass(frozen=True, slots=True)
class RedrivePlan:
    """What a redrive would do."""

    keys: list[CallKey]
    worst_case_nano_usd: int
    refused: dict[str, str]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    dead = typer.Typer(no_args_is_help=True, help="Dead letters: look, redrive, discard.")
    dead.command("list")(list_dead)
    dead.command()(show)
    dead.command()(stats)
    dead.command()(redrive)
    dead.command()(discard)
    app.add_typer(dead, name="dead")


def list_dead(
    context: typer.Context,
    org: Org = None,
    call_type: CallType = None,
    provider: Provider = None,
    model: Model = None,
    fingerprint: Fingerprint = None,
    ids: CallIds = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=SCANNED_MAX)] = 20,
    as_json: AsJson = False,
) -> None:
    """List dead calls, newest first; without a filter also messages that named no call."""
    wanted = _filter(org, call_type, provider, model, fingerprint, ids)
    with client_of(context) as client:
        views = _dead(client, wanted)[:limit]
        unprocessable_messages = _strays(client, limit) if _is_everything(wanted) else []
    if as_json:
        told = [
            {"at": at, "queue": s.queue, "reason": s.reason, "raw": s.raw}
            for at, s in unprocessable_messages
        ]
        print_json({"calls": [call_fields(view) for view in views], "unprocessable_messages": told})
        return
    print_table(CALL_COLUMNS, call_rows(views), "no dead calls")
    if unprocessable_messages:
        rows = [(at, s.queue, s.reason) for at, s in unprocessable_messages]
        print_table(("!stray message at", "!queue", "reason"), rows, "")


def _strays(client: Client, limit: int) -> list[tuple[datetime, UnprocessableMessage]]:
    """Stray messages belong to no organisation, so they are not a client's to see; its dead calls are."""
    try:
        return client.operations.unprocessable_messages(limit=limit)
    except NotPermitted as exc:
        say(f"without stray messages: {exc}")
        return []


def show(
    context: typer.Context,
    task_id: Annotated[str, typer.Argument(metavar="CALL")],
    as_json: AsJson = False,
) -> None:
    """Show one dead call with its request and its last reply."""
    with client_of(context) as client:
        view = find_call(client, task_id, Bodies.BOTH)
    if view.state is not CallState.DEAD:
        raise CallNotFound(f"no dead letter: {view.key.task_id} is {view.state}")
    print_call(view, as_json=as_json)


def stats(
    context: typer.Context,
    org: Org = None,
    call_type: CallType = None,
    provider: Provider = None,
    model: Model = None,
    fingerprint: Fingerprint = None,
    as_json: AsJson = False,
) -> None:
    """Group dead calls by what went wrong, the largest group first."""
    wanted = _filter(org, call_type, provider, model, fingerprint, None)
    with client_of(context) as client:
        groups = client.operations.dead_groups(wanted)
    if as_json:
        print_json([{**_fields(g), "sample_error": loaded(g.sample_error)} for g in groups])
        return
    rows = [
        (g.error_fingerprint, g.count, g.model, f"{g.last_at:%m-%d %H:%M}", error_text(g.sample_error))
        for g in groups
    ]  # fmt: skip
    print_table(("!fingerprint", ">calls", "model", "!last", "error"), rows, "no dead calls")


def redrive(
    context: typer.Context,
    org: Org = None,
    call_type: CallType = None,
    provider: Provider = None,
    model: Model = None,
    fingerprint: Fingerprint = None,
    ids: CallIds = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count and price only.")] = False,
    at_most: Max = REDRIVEN_MAX,
    rate: Annotated[
        float | None, typer.Option("--rate", parser=rate_per_s, metavar="N/s", help="Go slowly.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give dead calls another generation, under today's gates, prices and budgets."""
    wanted = _filter(org, call_type, provider, model, fingerprint, ids)
    with client_of(context) as client:
        plan = _plan(client, _dead(client, wanted)[:at_most])
        about = f"{len(plan.keys)} calls, at worst {usd(plan.worst_case_nano_usd)}"
        redriven: list[str] = []
        if not dry_run and plan.keys:
            confirm(f"Redrive {about}?", yes)
            redriven = _redrive(client, plan, rate)
    if as_json:
        print_json(
            {"dry_run": dry_run, "count": len(plan.keys), "redriven": redriven, **_cost(plan)}
        )
        return
    say(f"would redrive {about}" if dry_run else f"redriven: {len(redriven)} of {about}")
    for task_id, why in plan.refused.items():
        say(f"not {task_id}: {why}")


def discard(
    context: typer.Context,
    reason: Annotated[str, typer.Option("--reason", help="Kept with the call.")],
    org: Org = None,
    call_type: CallType = None,
    provider: Provider = None,
    model: Model = None,
    fingerprint: Fingerprint = None,
    ids: CallIds = None,
    at_most: Max = REDRIVEN_MAX,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Discard dead calls: they become rejected, and who did it and why is kept."""
    wanted = _filter(org, call_type, provider, model, fingerprint, ids)
    discarded: list[CallKey] = []
    with client_of(context) as client:
        keys = [view.key for view in _dead(client, wanted)[:at_most]]
        if keys:
            confirm(f"Discard {len(keys)} calls?", yes)
        for start in range(0, len(keys), BATCH_MAX):
            discarded += client.operations.end(
                keys[start : start + BATCH_MAX],
                code=EndReason.DISCARDED,
                message=f"{reason} (by {_who()})",
            )
    if as_json:
        print_json({"discarded": [key.task_id for key in discarded]})
    else:
        say(f"discarded: {len(discarded)} of {len(keys)} calls")


def _dead(client: Client, wanted: CallFilter) -> list[CallView]:
    """Dead calls that no later generation has replaced: running those anew could pay for an answer twice."""
    views = client.operations.calls(wanted, limit=SCANNED_MAX)
    dead: list[CallView] = []
    for start in range(0, len(views), REDRIVEN_MAX):
        part = views[start : start + REDRIVEN_MAX]
        later = client.ledger.read([CallKey(v.key.call_id, v.key.generation + 1) for v in part])
        dead += [v for v, successor in zip(part, later, strict=True) if successor is None]
    return dead


def _plan(client: Client, views: Sequence[CallView]) -> RedrivePlan:
    """Price each call at today's worst case, as its hold will be."""
    from callgate.adapters.cost_calculator import CostCalculator

    costs, now = CostCalculator(client.catalogue), datetime.now(UTC)
    plan = RedrivePlan([], 0, {})
    total = 0
    for start in range(0, len(views), BATCH_MAX):
        keys = [view.key for view in views[start : start + BATCH_MAX]]
        for view in filter(None, client.ledger.read(keys, Bodies.REQUEST)):
            try:
                if view.request is None:
                    raise InvalidRequest("its request was purged")
                request = request_of(view)
                total += costs.worst_case(request, view.input_token_bound, now).nano_usd
                plan.keys.append(view.key)
            except (InvalidRequest, ValueError) as exc:
                plan.refused[view.key.task_id] = str(exc)
    return RedrivePlan(plan.keys, total, plan.refused)


def _redrive(client: Client, plan: RedrivePlan, rate: float | None) -> list[str]:
    """Redrive in batches, at most `rate` calls a second; adds refusals to the plan."""
    batch = BATCH_MAX if rate is None else max(1, min(BATCH_MAX, int(rate)))
    redriven = []
    for start in range(0, len(plan.keys), batch):
        if start and rate is not None:
            time.sleep(batch / rate)
        submitted, refused = client.redrive(plan.keys[start : start + batch])
        redriven += [s.key.task_id for s in submitted if s.outcome is SubmitOutcome.CREATED]
        plan.refused.update({key.task_id: why for key, why in refused.items()})
    return redriven


def _who() -> str:
    return f"{system_user()}@{socket.gethostname()}"


def _filter(
    org: str | None,
    call_type: str | None,
    provider: str | None,
    model: str | None,
    fingerprint: str | None,
    ids: list[UUID] | None,
) -> CallFilter:
    return CallFilter(
        org, CallState.DEAD, call_type, provider, model, fingerprint, tuple(ids or ())
    )


def _is_everything(wanted: CallFilter) -> bool:
    return wanted == CallFilter(state=CallState.DEAD)


def _fields(group: Any) -> dict[str, Any]:
    return {name: getattr(group, name) for name in group.__dataclass_fields__}


def _cost(plan: RedrivePlan) -> dict[str, Any]:
    return {"worst_case_nano_usd": plan.worst_case_nano_usd, "refused": plan.refused}
