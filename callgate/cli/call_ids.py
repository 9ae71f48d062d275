"""How calls are named on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from callgate.domain.short_ids import ShortId, read_short_id
from callgate.services.call_details import call_id_of

if TYPE_CHECKING:
    from callgate.client import Client

NamedId = tuple[str, ShortId]
"""What was typed, and how it was read."""


def parse_call_id(text: str) -> NamedId:
    """Parse a call id, the call id of a task id, or the first digits of one."""
    try:
        return text, read_short_id(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from None


def call_ids_of(client: Client, ids: Sequence[NamedId] | None) -> tuple[UUID, ...]:
    """
    The calls that were named.

    Raises:
        AmbiguousCall, CallNotFound, LedgerUnavailable
    """
    return tuple(call_id_of(short, text, client.operations) for text, short in ids or ())


CallIds = Annotated[
    list[Any] | None,
    typer.Option(
        "--id",
        parser=parse_call_id,
        metavar="CALL",
        help="This call, or the first 8 digits of its id; repeatable.",
    ),
]
