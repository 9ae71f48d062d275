"""`callgate actions`, and what every command shares that changes something in an operator's name."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from callgate.cli.output import AsJson, client_of, print_json, print_table
from callgate.domain.reports import By, OperatorAction

if TYPE_CHECKING:
    from callgate.client import Client

LISTED_MAX = 10_000
WORDS_CHARS_MAX = 1_000


def words(text: str) -> str:
    """Parse what a person says: not nothing, and no more than is read."""
    said = text.strip()
    if not said or len(said) > WORDS_CHARS_MAX:
        raise typer.BadParameter(f"say it in 1 to {WORDS_CHARS_MAX} characters")
    if not said.isprintable() and not said.replace("\n", " ").replace("\t", " ").isprintable():
        raise typer.BadParameter("it has characters that cannot be printed")
    return said


Reason = Annotated[str, typer.Option("--reason", parser=words, help="Why; kept with the change.")]
Operator = Annotated[
    str | None,
    typer.Option(
        "--operator", parser=words, help="Who; else CALLGATE_OPERATOR, else this system's user."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    actions = typer.Typer(no_args_is_help=True, help="What operators changed, and why.")
    actions.command("list")(list_actions)
    app.add_typer(actions, name="actions")


def list_actions(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=LISTED_MAX)] = 20,
    as_json: AsJson = False,
) -> None:
    """List what operators changed, newest first."""
    with client_of(context) as client:
        actions = client.operations.actions(limit=limit)
    if as_json:
        print_json([_fields(action) for action in actions])
        return
    columns = ("!at", "operator", "!action", "org", "subject", "reason", "detail")
    print_table(columns, map(_row, actions), "no operator has changed anything")


def by_of(client: Client, operator: str | None, reason: str) -> By:
    """Who changes something with this command, and why."""
    return By(operator or client.settings.operator or system_user(), reason)


def system_user() -> str:
    """The user this process runs as; never empty."""
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
