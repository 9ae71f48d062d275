"""`callgate alerts`: list what was alerted, test that alerts arrive, and send messages again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from callgate.cli.actions import by_of, system_user
from callgate.cli.options import AsJson, Limit, Operator, Org, Reason
from callgate.cli.output import client_of, print_fields, print_json, print_note, print_table
from callgate.domain.alert_words import todo_of, words_of
from callgate.domain.alerts import STATES, AlertLine

NOBODY_LOOKS = "no worker is alive, so nobody looks for alerts now: this list may be old; see `callgate doctor`"
Holding = Annotated[bool, typer.Option("--holding", help="Only states that still hold.")]
Dead = Annotated[
    bool, typer.Option("--dead", help="The alerts with a dead message; instead of ids.")
]
Ids = Annotated[list[int] | None, typer.Argument(metavar="[ALERT_ID]...", help="The alerts.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    alerts = typer.Typer(
        no_args_is_help=True, help="List alerts, test that they arrive, and send them again."
    )
    alerts.command("list")(list_alerts)
    alerts.command("test")(raise_test)
    alerts.command("replay")(replay_alerts)
    app.add_typer(alerts, name="alerts")


def list_alerts(
    context: typer.Context,
    org: Org = None,
    holding: Holding = False,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """
    List alerts, newest first, and what became of their webhook messages.

    JSON: an array of alert_id, kind, org_id, subject, message, todo, at, resolved_at, is_state, detail, webhook
    (`delivered`, `pending`, `dead`, or empty without a message), tries and failure.
    """
    with client_of(context) as client:
        found = client.operations.alerts(org, only_holding=holding, limit=limit)
        is_watched = client.operations.alert_watchers() > 0
    if as_json:
        print_json([_fields(line) for line in found])
    else:
        columns = (">id", "!at", "!kind", "!state", "what", "what to do", "!webhook", "failure")
        print_table(columns, map(_row, found), "nothing was alerted")
    if not is_watched:
        print_note(NOBODY_LOOKS)


def raise_test(context: typer.Context, operator: Operator = None, as_json: AsJson = False) -> None:
    """
    Raise an alert that only shows that alerts arrive. A worker logs it, and sends it to the webhook.

    JSON: alert_id.
    """
    with client_of(context) as client:
        name = operator or client.settings.operator or system_user()
        alert_id = client.operations.test_alert(name)
    print_note("a worker sends it within seconds; see `callgate alerts list`")
    if as_json:
        print_json({"alert_id": alert_id})
        return
    print_fields({"alert": alert_id})


def replay_alerts(
    context: typer.Context,
    reason: Reason,
    ids: Ids = None,
    dead: Dead = False,
    limit: Limit = 100,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Have the webhook messages of alerts sent again, whatever became of them. They keep their ids.

    JSON: alert_ids, those whose messages are sent again.
    """
    if dead == bool(ids):
        raise typer.BadParameter("give --dead, or the ids of alerts")
    with client_of(context) as client:
        by = by_of(client, operator, reason)
        replayed = client.operations.replay_alerts(None if dead else ids, limit=limit, by=by)
    for alert_id in sorted(set(ids or ()) - set(replayed)):
        print_note(f"there is no alert {alert_id}")
    if as_json:
        print_json({"alert_ids": replayed})
        return
    print_fields({"sent again": len(replayed)})


def _state(line: AlertLine) -> str:
    if line.alert.kind not in STATES:
        return ""
    return "resolved" if line.alert.resolved_at else "holds"


def _row(line: AlertLine) -> tuple[object, ...]:
    alert = line.alert
    return (
        *(alert.alert_id, alert.at, alert.kind.value, _state(line), words_of(alert)),
        *(todo_of(alert), line.webhook, line.failure or ""),
    )


def _fields(line: AlertLine) -> dict[str, Any]:
    alert = line.alert
    return {
        "alert_id": alert.alert_id,
        "kind": alert.kind,
        "org_id": alert.org_id or None,
        "subject": alert.subject,
        "message": words_of(alert),
        "todo": todo_of(alert),
        "at": alert.at,
        "resolved_at": alert.resolved_at,
        "is_state": alert.kind in STATES,
        "detail": alert.detail,
        "webhook": line.webhook,
        "tries": line.tries,
        "failure": line.failure,
    }
