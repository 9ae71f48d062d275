"""`callgate estimate`: what a file of requests may cost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from callgate.cli.options import AsJson
from callgate.cli.output import client_of, print_json, print_note, print_table
from callgate.domain.bounds import REQUEST_MAX_BYTES
from callgate.domain.budgets import usd
from callgate.domain.estimates import Estimate, GroupEstimate, exact_usd
from callgate.services.estimates import candidates_in

PIECE_BYTES = 1_048_576
COLUMNS = (
    *("org", "call type", "model", ">requests", ">new", ">replayed", ">joined", ">dead", ">dup"),
    *(">worst case", ">expected", ">history"),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(estimate)


def estimate(
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(metavar="FILE.jsonl", help="A request as JSON per line; `-` reads stdin."),
    ],
    as_json: AsJson = False,
) -> None:
    """
    Say what requests may cost, before anything is run. Nothing is stored or sent.

    The worst case is one attempt of each new request at its whole hold, and its repairs (`repairs_max`); retries are
    told apart. Expected is the part of the holds that answers of the last 30 days cost, by organisation, call type and
    model; nothing where there was none.

    JSON: requests, worst_case_usd, repairs_usd (the part of it that repairs are), retries_usd (what further attempts
    may add), expected_usd (of groups with a history), without_history, are_duplicates_complete, groups and refused.
    Amounts are exact decimals in text.
    """
    with client_of(context) as client:
        try:
            with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as opened:
                found = client.estimates.estimate(candidates_in(bounded_lines(opened)))
        except OSError as exc:
            raise typer.BadParameter(f"{file} cannot be read: {exc.strerror}") from None
    if as_json:
        print_json(_fields(found))
        return
    print_table(COLUMNS, map(_row, found.groups), "no request would be accepted")
    _print_sums(found)


def bounded_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file. Of a line that is too long, a piece that is longer than a request may be."""
    while line := file.readline(REQUEST_MAX_BYTES + 2):
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(PIECE_BYTES)):
            # The rest of a line that is too long.
            continue
        yield line


def _print_sums(found: Estimate) -> None:
    print_note(
        f"worst case {usd(found.worst_case_nano_usd)} for one attempt each, of which repairs are "
        f"{usd(found.repairs_nano_usd)}; retries may add {usd(found.retries_nano_usd)}; expected "
        f"{usd(found.expected_nano_usd)}"
    )
    if found.without_history:
        print_note(
            f"{found.without_history} new requests have no history of 30 days: nothing is expected of them"
        )
    if not found.are_duplicates_complete:
        print_note("there are so many requests that later duplicates are counted as new")
    for refused in found.refused:
        numbers = ", ".join(map(str, refused.numbers))
        more = ", ..." if refused.requests > len(refused.numbers) else ""
        print_note(
            f"{refused.requests} would be refused with {refused.code}, in line {numbers}{more}: {refused.first_why}"
        )


def _row(group: GroupEstimate) -> tuple[object, ...]:
    expected = group.expected_nano_usd
    name = group.name
    return (
        name.org_id,
        name.call_type,
        f"{name.provider}/{name.model}",
        *(group.requests, group.new, group.replayed, group.joined, group.failed, group.duplicates),
        usd(group.worst_case_nano_usd),
        "" if expected is None else usd(expected),
        group.history_attempts,
    )


def _fields(found: Estimate) -> dict[str, Any]:
    return {
        "requests": found.requests,
        "worst_case_usd": exact_usd(found.worst_case_nano_usd),
        "repairs_usd": exact_usd(found.repairs_nano_usd),
        "retries_usd": exact_usd(found.retries_nano_usd),
        "expected_usd": exact_usd(found.expected_nano_usd),
        "without_history": found.without_history,
        "are_duplicates_complete": found.are_duplicates_complete,
        "groups": [_group_fields(group) for group in found.groups],
        "refused": [asdict(refused) for refused in found.refused],
    }


def _group_fields(group: GroupEstimate) -> dict[str, Any]:
    expected = group.expected_nano_usd
    return {
        **asdict(group.name),
        "requests": group.requests,
        "new": group.new,
        "replayed": group.replayed,
        "joined": group.joined,
        "failed": group.failed,
        "duplicates": group.duplicates,
        "worst_case_usd": exact_usd(group.worst_case_nano_usd),
        "retries_usd": exact_usd(group.retries_nano_usd),
        "expected_usd": None if expected is None else exact_usd(expected),
        "history_attempts": group.history_attempts,
    }
