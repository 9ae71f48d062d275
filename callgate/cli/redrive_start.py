"""`callgate dead-letters redrive` and `callgate redrives start`: show what a redrive would do, start it, follow it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from callgate.cli.actions import by_of
from callgate.cli.call_ids import CallIds, call_ids_of
from callgate.cli.options import (
    AsJson,
    DryRun,
    Operator,
    Yes,
    call_filter,
    parse_name,
    parse_text,
    parse_time,
    with_options,
)
from callgate.cli.output import client_of, print_json, print_note, print_table
from callgate.cli.redrive_output import (
    Cap,
    Rate,
    RedriveId,
    print_redrive,
    progress_of,
    redrive_fields,
    wait_for,
)
from callgate.cli.unknown_names import point_out
from callgate.domain.budgets import usd
from callgate.domain.calls import CallState
from callgate.domain.errors import CallNotFound, CountDiffers, RedriveRefused
from callgate.domain.redrives import (
    CALLS_MAX,
    STOP_MIN,
    STOP_SHARE,
    Redrive,
    RedriveState,
    RedriveTerms,
    UnknownBills,
)
from callgate.domain.reports import By, CallFilter

if TYPE_CHECKING:
    from callgate.client import Client

WAITED_FOR = (RedriveState.RUNNING, RedriveState.ABORTED)
"""States in which the command goes on waiting; an aborted redrive has ended once its calls have."""

MayReason = Annotated[
    str | None,
    typer.Option("--reason", parser=parse_text, help="Why; needed unless nothing is started."),
]
Expect = Annotated[
    int | None,
    typer.Option("--expect", min=0, help="So many calls; otherwise nothing is started."),
]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a redrive is to be started."""

    terms: RedriveTerms
    unknown_bills: UnknownBills
    expect: int | None
    yes: bool
    is_waited_for: bool


def wishes(
    rate_per_min: Rate = None,
    cap: Cap = None,
    stop_percent: Annotated[
        float,
        typer.Option("--stop-percent", min=0.1, max=100, help="Pause if so many fail again ..."),
    ] = STOP_SHARE * 100,
    stop_min: Annotated[
        int, typer.Option("--stop-min", min=1, max=CALLS_MAX, help="... of at least this many.")
    ] = STOP_MIN,
    pay_twice: Annotated[
        bool,
        typer.Option("--pay-twice", help="Also calls whose bill is unknown: they may cost twice."),
    ] = False,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out calls whose bill is unknown.")
    ] = False,
    expect: Expect = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait for its end; workers go on.")
    ] = False,
    yes: Yes = False,
) -> Wishes:
    """The options that say how a redrive is started."""
    if pay_twice and skip_unknown:
        raise typer.BadParameter("give --pay-twice or --skip-unknown, not both")
    unknown = UnknownBills.PAY_AGAIN if pay_twice else UnknownBills.REFUSE
    return Wishes(
        RedriveTerms(rate_per_min, cap, stop_percent / 100, stop_min),
        UnknownBills.SKIP if skip_unknown else unknown,
        expect,
        yes,
        not no_wait,
    )


def selection(
    refused: Annotated[
        bool, typer.Option("--refused", help="Calls that were refused, instead of dead ones.")
    ] = False,
    end_reason: Annotated[
        str | None,
        typer.Option(
            "--end-reason", parser=parse_name, help="Only calls that ended for this reason."
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--since", parser=parse_time, metavar="TIME", help="Submitted then or later."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option("--until", parser=parse_time, metavar="TIME", help="Submitted before."),
    ] = None,
) -> CallFilter:
    """The options that choose calls for a redrive, besides those of all lists."""
    state = CallState.REJECTED if refused else CallState.DEAD
    return CallFilter(state=state, end_reason=end_reason, since=since, until=until)


@with_options(call_filter=call_filter, chosen=selection, wishes=wishes)
def redrive(
    context: typer.Context,
    call_filter: CallFilter,
    chosen: CallFilter,
    wishes: Wishes,
    ids: CallIds = None,
    reason: MayReason = None,
    dry_run: DryRun = False,
    calls_max: Annotated[
        int, typer.Option("--max", min=1, max=CALLS_MAX, help="At most this many calls.")
    ] = CALLS_MAX,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Give dead calls another generation, under today's gates, prices and budgets: as a stored operation that workers run.

    The plan says how many calls it concerns, what they can cost, and how many would be refused now. Interrupting the
    command does not stop the redrive; `callgate redrives` shows, pauses, resumes and aborts it. Exit 1 if no call
    matches.

    JSON: dry_run, count, redrive (as in `redrives show`), organisations, refused_now and waiting_now by reason.
    """
    _require_answers(reason, wishes, dry_run=dry_run)
    which = replace(
        chosen,
        org_id=call_filter.org_id,
        call_type=call_filter.call_type,
        provider=call_filter.provider,
        model=call_filter.model,
        error_fingerprint=call_filter.error_fingerprint,
    )
    with client_of(context) as client:
        which = replace(which, call_ids=call_ids_of(client, ids))
        planner = by_of(client, operator, reason or "dry run")
        try:
            planned = client.redrives.plan(which, planner, calls_max=calls_max)
        except CallNotFound as exc:
            point_out(client, which.org_id, which.call_type)
            _print_nothing(str(exc), dry_run=dry_run, as_json=as_json)
            raise typer.Exit(1) from None
        by = None if dry_run else planner
        _carry_on(client, planned.redrive_id, by, wishes, as_json=as_json)


@with_options(wishes=wishes)
def start(
    context: typer.Context,
    redrive: RedriveId,
    wishes: Wishes,
    reason: MayReason = None,
    dry_run: DryRun = False,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Start a redrive that was planned: by `dead-letters redrive --dry-run`, or in Flower.

    JSON: as in `dead-letters redrive`.
    """
    _require_answers(reason, wishes, dry_run=dry_run)
    with client_of(context) as client:
        by = None if dry_run else by_of(client, operator, reason or "")
        _carry_on(client, redrive, by, wishes, as_json=as_json)


def _require_answers(reason: str | None, wishes: Wishes, *, dry_run: bool) -> None:
    """Ask before anything is planned for what a start needs."""
    if dry_run:
        return
    if reason is None:
        raise typer.BadParameter("give --reason: it is stored with the redrive; or --dry-run")
    if not wishes.yes and wishes.expect is None and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: give --expect or --yes")


def _carry_on(
    client: Client, redrive_id: UUID, by: By | None, wishes: Wishes, *, as_json: bool
) -> None:
    """Wait for the plan, show it, start it if somebody says why, and follow it."""
    planned = wait_for(client, redrive_id, RedriveState.PLANNING)
    payload = _plan_fields(client, planned)
    if not as_json:
        _print_plan(planned, payload)
    if by is None:
        if not as_json:
            print_note(f"nothing is started; `callgate redrives start {redrive_id}` starts it")
    else:
        planned = _start(client, planned, by, wishes)
    if as_json:
        print_json({"dry_run": by is None, **payload, "redrive": redrive_fields(planned)})
    elif by is not None:
        print_redrive(planned)
    is_stopped = planned.state in (RedriveState.PAUSED, RedriveState.ABORTED)
    if by is not None and wishes.is_waited_for and is_stopped:
        raise typer.Exit(1)


def _start(client: Client, planned: Redrive, by: By, wishes: Wishes) -> Redrive:
    calls = planned.counts.pending
    if wishes.unknown_bills is UnknownBills.SKIP:
        calls -= planned.unknown
    try:
        started = client.redrives.start(
            planned.redrive_id,
            by,
            expected_calls=_expected(calls, wishes),
            terms=wishes.terms,
            unknown_bills=wishes.unknown_bills,
        )
    except (CountDiffers, RedriveRefused, typer.Abort, typer.BadParameter):
        if planned.state is RedriveState.PLANNED:
            client.redrives.abort(planned.redrive_id, By(by.operator, "it was not started"))
        raise
    print_note(f"redrive {planned.redrive_id} is started")
    if not wishes.is_waited_for:
        return started
    ended = wait_for(client, planned.redrive_id, *WAITED_FOR)
    print_note(progress_of(ended))
    return ended


def _expected(calls: int, wishes: Wishes) -> int:
    """How many calls the operator expects: typed, unless it is given."""
    if wishes.expect is not None:
        return wishes.expect
    if wishes.yes:
        return calls
    return int(typer.prompt("Type the number of calls to start it", type=int, err=True))


def _plan_fields(client: Client, planned: Redrive) -> dict[str, Any]:
    seen = client.redrives.forecast(planned.redrive_id)
    return {
        "count": planned.counts.pending,
        "worst_case_nano_usd": planned.worst_case_nano_usd,
        "unknown_bills": planned.unknown,
        "organisations": [asdict(org) for org in client.redrives.orgs_of(planned.redrive_id)],
        "refused_now": seen.refused,
        "waiting_now": seen.waiting,
    }


def _print_plan(planned: Redrive, payload: Mapping[str, Any]) -> None:
    rows = [
        (o["org_id"], o["pending"], usd(o["worst_case_nano_usd"]), o["unknown"] or "")
        for o in payload["organisations"]
    ]
    print_table(("org", ">calls", ">worst case", ">unknown bills"), rows, "no calls")
    print_note(f"{payload['count']} calls, at worst {usd(planned.worst_case_nano_usd)}")
    for what, counts in (("refused", payload["refused_now"]), ("waiting", payload["waiting_now"])):
        if counts:
            reasons = ", ".join(f"{count} {code}" for code, count in counts.items())
            print_note(f"would be {what} now: {reasons}")
    if planned.counts.refused:
        print_note(f"{planned.counts.refused} cannot be released: `callgate redrives show`")
    if planned.unknown:
        print_note(
            f"{planned.unknown} may be paid twice, because a bill is unknown: give --pay-twice or --skip-unknown"
        )


def _print_nothing(why: str, *, dry_run: bool, as_json: bool) -> None:
    if not as_json:
        print_note(why)
        return
    nothing: dict[str, Any] = {"dry_run": dry_run, "count": 0, "worst_case_nano_usd": 0}
    rest = {"unknown_bills": 0, "organisations": [], "refused_now": {}, "waiting_now": {}}
    print_json({**nothing, **rest, "redrive": None})
