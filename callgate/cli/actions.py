"""`callgate actions`, and who is named in the action log."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING, Any

import typer

from callgate.cli.options import AsJson, Limit
from callgate.cli.output import client_of, print_json, print_table
from callgate.domain.reports import By, OperatorAction

if TYPE_CHECKING:
    from callgate.client import Client


def register(app: typer.Typer) -> None:
    """Add the commands."""
    actions = typer.Typer(no_args_is_help=True, help="Show what operators changed, and why.")
    actions.command("list")(list_actions)
    app.add_typer(actions, name="actions")


def list_actions(
    context: typer.Context,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """
    List what operators changed, newest first.

    JSON: an array of at, operator, reason, action, org_id, subject and detail.
    """
    with client_of(context) as client:
        actions = client.operations.actions(limit=limit)
    if as_json:
        print_json([_fields(action) for action in actions])
        return
    columns = ("!at", "operator", "!action", "org", "subject", "reason", "detail")
    print_table(columns, map(_row, actions), "no operator has changed anything")


def by_of(client: Client, operator: str | None, reason: str) -> By:
    """Who makes this change, and why."""
    return By(operator or client.settings.operator or system_user(), reason)


def system_user() -> str:
    """The user that this process runs as; never empty."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    return user.strip() or f"uid {os.getuid()}"


def _row(a: OperatorAction) -> tuple[object, ...]:
    detail = ", ".join(f"{name} {value}" for name, value in a.detail.items())
    return a.at, a.by.operator, a.action, a.org_id or "", a.subject, a.by.reason, detail


def _fields(a: OperatorAction) -> dict[str, Any]:
    return {
        "at": a.at,
        "operator": a.by.operator,
        "reason": a.by.reason,
        "action": a.action,
        "org_id": a.org_id,
        "subject": a.subject,
        "detail": a.detail,
    }
