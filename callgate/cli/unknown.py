"""`callgate unknown`: list attempts whose bill is unknown, and settle them by hand."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from callgate.cli.actions import by_of
from callgate.cli.options import (
    AsJson,
    DryRun,
    Limit,
    Model,
    Operator,
    Org,
    Provider,
    Reason,
    with_options,
)
from callgate.cli.output import client_of, print_json, print_note, print_table
from callgate.domain.budgets import nano_usd_of, usd
from callgate.domain.errors import InvalidBills
from callgate.domain.stored_errors import parse_error
from callgate.domain.unknown import (
    BILLED_MAX_USD,
    HandOutcome,
    SettledByHand,
    UnknownBill,
    UnknownDay,
    UnknownFilter,
)
from callgate.services.bills import BILLS_MAX_BYTES, EnteredBill, attempt_uuid, read_bills

REMEDIES = {
    HandOutcome.SETTLED: "",
    HandOutcome.UNCHANGED: "it was settled by hand at this amount before",
    HandOutcome.CHANGED: "it was settled by hand, or an answer came late; to change what it posts, give --seen-usd",
    HandOutcome.ABOVE_HOLD: "more than was held; if that is right, give --more-than-hold",
    HandOutcome.NOT_UNKNOWN: "its cost is known, or it is still running",
    HandOutcome.ARCHIVED: "its month of the log was dropped; only the sums remain",
    HandOutcome.NOT_FOUND: "the ledger has no such attempt",
}


def parse_billed(text: str) -> int:
    """Parse the amount that a provider billed for one request."""
    try:
        return nano_usd_of(text, usd_max=BILLED_MAX_USD)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from None


def parse_attempt_id(text: str) -> UUID:
    """Parse an attempt's id."""
    try:
        return attempt_uuid(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from None


def parse_day(text: str) -> datetime:
    """Parse a day as its first moment, UTC."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day like 2026-11-28") from None


Since = Annotated[
    datetime | None,
    typer.Option("--since", parser=parse_day, metavar="DAY", help="The first day, UTC."),
]
Until = Annotated[
    datetime | None,
    typer.Option("--until", parser=parse_day, metavar="DAY", help="The last day, UTC, included."),
]
Past = Annotated[
    bool,
    typer.Option("--past", help="Include whole holds that earlier versions posted unmarked."),
]


def unknown_filter(
    org: Org = None,
    provider: Provider = None,
    model: Model = None,
    since: Since = None,
    until: Until = None,
    past: Past = False,
) -> UnknownFilter:
    """The options that choose attempts whose bill is unknown."""
    before = None if until is None else until + timedelta(days=1)
    return UnknownFilter(org, provider, model, since, before, past)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    unknown = typer.Typer(
        no_args_is_help=True, help="List and settle attempts whose bill is unknown."
    )
    unknown.command("list")(list_bills)
    unknown.command()(summary)
    unknown.command()(settle)
    app.add_typer(unknown, name="unknown")


@with_options(unknown_filter=unknown_filter)
def list_bills(
    context: typer.Context,
    unknown_filter: UnknownFilter,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """
    List attempts whose bill is unknown, newest first, and the money they hold.

    JSON: an array of task_id, attempt_id, and the other fields of an UnknownBill.
    """
    with client_of(context) as client:
        bills = client.operations.unknown_bills(unknown_filter, limit=limit)
    if as_json:
        print_json([_fields(bill) for bill in bills])
        return
    columns = ("!attempt", "!started", "org", "model", ">held", "why", "provider's id")
    print_table(columns, map(_row, bills), "no unknown bills")
    if bills:
        more = "; there may be more: --limit" if len(bills) == limit else ""
        print_note(f"{len(bills)} attempts hold {usd(sum(b.posted_nano_usd for b in bills))}{more}")


@with_options(unknown_filter=unknown_filter)
def summary(
    context: typer.Context,
    unknown_filter: UnknownFilter,
    as_json: AsJson = False,
) -> None:
    """
    Sum unknown bills by day (UTC) and model, beside the known bills.

    The provider's total for a day and model, minus the known bills, is what the unknown attempts cost.

    JSON: an array of day, provider, model, attempts, posted_nano_usd, known_attempts and known_nano_usd.
    """
    with client_of(context) as client:
        days = client.operations.unknown_days(unknown_filter)
    if as_json:
        print_json(days)
        return
    columns = ("!day", "model", ">unknown", ">held", ">known", ">posted")
    print_table(columns, map(_day_row, days), "no unknown bills")


def settle(
    context: typer.Context,
    reason: Reason,
    attempt: Annotated[
        UUID | None, typer.Argument(parser=parse_attempt_id, metavar="[ATTEMPT]", help="Its id.")
    ] = None,
    unbilled: Annotated[bool, typer.Option("--unbilled", help="It cost nothing.")] = False,
    billed: Annotated[
        int | None,
        typer.Option("--billed-usd", parser=parse_billed, metavar="USD", help="What it cost."),
    ] = None,
    seen: Annotated[
        int | None,
        typer.Option(
            "--seen-usd",
            parser=parse_billed,
            metavar="USD",
            help="Only if this amount is posted now; needed to change a settlement by hand.",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--csv", help="A CSV file with the columns attempt_id,billed_usd; `-` reads stdin."
        ),
    ] = None,
    more_than_hold: Annotated[
        bool, typer.Option("--more-than-hold", help="Accept amounts above the hold.")
    ] = False,
    dry_run: DryRun = False,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Post what the provider billed, in place of the whole hold.

    Exit 1 if an attempt could not be settled. Settling the same amount again changes nothing.

    JSON: dry_run; attempts, an array of attempt_id, outcome, posted_before_nano_usd and posted_nano_usd.
    """
    bills = _bills(attempt, unbilled, billed, seen, file)
    with client_of(context) as client:
        by = by_of(client, operator, reason)
        answers = list(
            client.bills.settle(bills, by=by, may_exceed_hold=more_than_hold, dry_run=dry_run)
        )
    _print_answers(answers, dry_run=dry_run, as_json=as_json)
    if not all(answer.outcome.is_done for answer in answers):
        raise typer.Exit(1)


def _bills(
    attempt: UUID | None, unbilled: bool, billed: int | None, seen: int | None, file: str | None
) -> list[EnteredBill]:
    if file is not None:
        if attempt is not None or unbilled or billed is not None or seen is not None:
            raise typer.BadParameter(
                "--csv names the attempts and their amounts; give neither as an option"
            )
        return read_bills(_text(file))
    if attempt is None or unbilled == (billed is not None):
        raise typer.BadParameter("give ATTEMPT with --unbilled or --billed-usd, or --csv")
    return [EnteredBill(attempt, billed or 0, seen)]


def _text(file: str) -> str:
    """
    Read a file, up to the longest that is accepted.

    Raises:
        InvalidBills: It is too long, or not text.
    """
    try:
        with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as opened:
            raw = opened.read(BILLS_MAX_BYTES + 1)
        if len(raw) > BILLS_MAX_BYTES:
            raise InvalidBills(f"the file has more than {BILLS_MAX_BYTES} bytes: split it")
        return raw.decode("utf-8-sig")
    except OSError as exc:
        raise typer.BadParameter(f"{file} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidBills("the file is not UTF-8") from None


def _print_answers(answers: Sequence[SettledByHand], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": dry_run, "attempts": [asdict(answer) for answer in answers]})
        return
    rows = [
        (a.attempt_id, a.outcome, _usd(a.posted_before_nano_usd), _usd(a.posted_nano_usd), REMEDIES[a.outcome])
        for a in answers
    ]  # fmt: skip
    print_table(("!attempt", "!outcome", ">before", ">now", "why"), rows, "no bills")
    counts = Counter(answer.outcome for answer in answers)
    totals = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    print_note(f"{'would be: ' if dry_run else ''}{totals}" if totals else "nothing to settle")


def _row(b: UnknownBill) -> tuple[object, ...]:
    code = (parse_error(b.error) or {}).get("code")
    why = ", ".join(b.anomalies) or code or b.status
    model = f"{b.provider}/{b.model}"
    amount = usd(b.posted_nano_usd)
    return b.attempt_id, b.started_at, b.org_id, model, amount, why, b.provider_request_id or ""


def _day_row(d: UnknownDay) -> tuple[object, ...]:
    unknown = d.attempts, usd(d.posted_nano_usd)
    return d.day, f"{d.provider}/{d.model}", *unknown, d.known_attempts, usd(d.known_nano_usd)


def _fields(b: UnknownBill) -> dict[str, Any]:
    fields = {"task_id": b.key.task_id, **asdict(b), "error": parse_error(b.error)}
    del fields["key"]
    return fields


def _usd(nano_usd: int | None) -> str:
    return "" if nano_usd is None else usd(nano_usd)
