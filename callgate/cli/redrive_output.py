"""How redrives are named, printed and followed on the command line."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from callgate.cli.output import print_fields, print_note
from callgate.cli.unknown import parse_billed
from callgate.domain.budgets import usd
from callgate.domain.redrives import RATE_MAX_PER_MIN, RATE_MIN_PER_MIN, Redrive, RedriveState

if TYPE_CHECKING:
    from callgate.client import Client

POLL_S = 0.5
NO_WORKER_NOTE_S = 15.0
"""After so long without any progress a note says that a worker is needed."""


def parse_rate(text: str) -> float:
    """Parse calls per minute: `30`, `30/m`, `0.5/s`."""
    per_second = text.endswith("/s")
    try:
        rate = float(text.removesuffix("/s").removesuffix("/m")) * (60 if per_second else 1)
    except ValueError:
        rate = 0.0
    if not RATE_MIN_PER_MIN <= rate <= RATE_MAX_PER_MIN:
        raise typer.BadParameter(
            f"{text!r} is not a rate from {RATE_MIN_PER_MIN} to {RATE_MAX_PER_MIN:.0f} a minute"
        )
    return rate


def parse_redrive_id(text: str) -> UUID:
    """Parse the id of a redrive."""
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not the id of a redrive") from None


RedriveId = Annotated[
    UUID, typer.Argument(parser=parse_redrive_id, metavar="REDRIVE", help="Its id.")
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate", parser=parse_rate, metavar="N", help="At most so many calls a minute; also N/s."
    ),
]
Cap = Annotated[
    int | None,
    typer.Option(
        "--cap-usd", parser=parse_billed, metavar="USD", help="Spend at most this, at worst."
    ),
]


def wait_for(client: Client, redrive_id: UUID, *states: RedriveState) -> Redrive:
    """
    Follow a redrive until it has left some states, and say on stderr how far it is.

    It can be interrupted: the redrive goes on.
    """
    told = ""
    moved_at = time.monotonic()
    while True:
        seen = client.redrives.get(redrive_id)
        if seen.state not in states and (seen.ended_at or seen.state is not RedriveState.ABORTED):
            return seen
        now = time.monotonic()
        if (line := progress_of(seen)) != told:
            print_note(line)
            told, moved_at = line, now
        elif now - moved_at >= NO_WORKER_NOTE_S:
            print_note("nothing has moved: redrives need a worker (`callgate worker`)")
            moved_at = now
        time.sleep(POLL_S)


def progress_of(redrive: Redrive) -> str:
    """How far it is, in one line."""
    if redrive.state is RedriveState.PLANNING:
        return f"priced: {redrive.calls - redrive.unpriced} of {redrive.calls}"
    parts = {name: count for name, count in asdict(redrive.counts).items() if count}
    counts = ", ".join(f"{count} {name}" for name, count in parts.items())
    return f"{state_of(redrive)}: {counts}; spent {usd(redrive.posted_nano_usd)}"


def state_of(redrive: Redrive) -> str:
    """The state, and why it is paused."""
    return f"{redrive.state} ({redrive.cause})" if redrive.cause else str(redrive.state)


def print_redrive(redrive: Redrive) -> None:
    """Print one redrive for people."""
    terms, counts = redrive.terms, asdict(redrive.counts)
    rate = terms.rate_per_min
    print_fields(
        {
            "redrive": redrive.redrive_id,
            "state": state_of(redrive),
            "selection": ", ".join(f"{k}={v}" for k, v in redrive.selection.items()),
            "planned": f"{redrive.created_at:%Y-%m-%d %H:%M:%S} UTC by {redrive.planned_by}",
            "started by": redrive.by and redrive.by.operator,
            "reason": redrive.by and redrive.by.reason,
            "calls": redrive.calls,
            **{name: count for name, count in counts.items() if count},
            "unknown bills": redrive.unknown or None,
            "worst case left": usd(redrive.worst_case_nano_usd),
            "open": usd(redrive.open_nano_usd),
            "spent": usd(redrive.posted_nano_usd),
            "cap": None if terms.cap_nano_usd is None else usd(terms.cap_nano_usd),
            "rate": None if rate is None else f"{rate:g} a minute",
            "stops": f"if {terms.stop_share:.0%} of at least {terms.stop_min} fail again",
            "ended": redrive.ended_at,
        }
    )


def redrive_fields(redrive: Redrive) -> dict[str, Any]:
    """A redrive as JSON."""
    fields = asdict(redrive)
    by = fields.pop("by") or {"operator": None, "reason": None}
    return {**fields, **by, "committed_nano_usd": redrive.committed_nano_usd}
