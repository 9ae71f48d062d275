"""How calls are named on the command line."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer


def parse_call_id(text: str) -> UUID:
    """Parse a call id, or the call id of a task id."""
    try:
        return UUID(text.partition(".")[0])
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a call id or task id") from None


CallIds = Annotated[
    list[UUID] | None,
    typer.Option("--id", parser=parse_call_id, metavar="CALL", help="This call; repeatable."),
]
