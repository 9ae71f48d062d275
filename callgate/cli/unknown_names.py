"""Organisations and call types that nothing knows: they may be misspelt, so the commands point them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callgate.cli.output import print_note
from callgate.domain.errors import NotPermitted
from callgate.domain.reports import CallFilter

if TYPE_CHECKING:
    from callgate.client import Client


def point_out(client: Client, org: str | None, call_type: str | None = None) -> None:
    """
    Say on stderr that an organisation has no call yet, or that neither catalogue nor ledger knows a call type.

    A catalogue that names no call types knows all of them.
    """
    try:
        if org and not client.operations.calls(CallFilter(org), limit=1):
            print_note(f"organisation {org} has no call yet: check that the name is right")
        elif call_type and not client.operations.calls(
            CallFilter(org, call_type=call_type), limit=1
        ):
            point_out_call_type(client, call_type)
    except NotPermitted:
        return


def point_out_call_type(client: Client, call_type: str) -> None:
    """Say on stderr that the catalogue names call types, and not this one."""
    known = client.catalogue.call_types
    if known and call_type not in known:
        print_note(
            f"call type {call_type} is not in the catalogue, so the default's rules apply: it has"
            f" {', '.join(sorted(known))}"
        )
