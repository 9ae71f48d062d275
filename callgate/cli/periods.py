"""The options `--since`, `--until` and `--today`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from callgate.cli.options import TIME_EXAMPLE, parse_time
from callgate.cli.output import cell_text, print_note
from callgate.services.periods import today as today_of

if TYPE_CHECKING:
    from callgate.client import Client


@dataclass(frozen=True, slots=True)
class Period:
    """From when to when; None: without limit."""

    since: datetime | None
    until: datetime | None
    is_today: bool

    def of(self, org_id: str | None, client: Client) -> tuple[datetime | None, datetime | None]:
        """The two times; for `--today` those of the organisation's day, and a note says in which zone."""
        if not self.is_today:
            return self.since, self.until
        found = today_of(client.operations, org_id, datetime.now(UTC))
        since, until = cell_text(found.since), cell_text(found.until)
        print_note(f"today in the time zone {found.zone}: {since} to {until}")
        return found.since, found.until


def period(
    since: Annotated[
        Any,
        typer.Option(
            "--since",
            parser=parse_time,
            metavar="TIME",
            help=f"From then on, for example {TIME_EXAMPLE}.",
        ),
    ] = None,
    until: Annotated[
        Any, typer.Option("--until", parser=parse_time, metavar="TIME", help="Before that time.")
    ] = None,
    today: Annotated[
        bool,
        typer.Option(
            "--today",
            help="The current day, in the time zone of the organisation's budgets; without --org in UTC.",
        ),
    ] = False,
) -> Period:
    """The options that choose a time."""
    if today and (since or until):
        raise typer.BadParameter("give --today, or --since and --until")
    if since and until and since >= until:
        raise typer.BadParameter("--since must be before --until")
    return Period(since, until, today)
