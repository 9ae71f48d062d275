"""`callgate pause`, `resume`, `pauses`, `freeze` and `unfreeze`: keep calls from being sent, by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from callgate.cli.actions import by_of
from callgate.cli.options import (
    AsJson,
    CallType,
    Model,
    Operator,
    Org,
    Provider,
    Reason,
    parse_name,
    with_options,
)
from callgate.cli.output import client_of, print_fields, print_json, print_note, print_table
from callgate.domain.pauses import Pause, PauseKey
from callgate.services import pauses as services

Everything = Annotated[bool, typer.Option("--all", help="All calls; instead of names.")]
FrozenOrg = Annotated[
    str, typer.Argument(parser=parse_name, metavar="ORG", help="The organisation.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(pause)
    app.command()(resume)
    app.command("pauses")(list_pauses)
    app.command()(freeze)
    app.command()(unfreeze)


def key_of_options(
    provider: Provider = None,
    model: Model = None,
    call_type: CallType = None,
    org: Org = None,
    everything: Everything = False,
) -> PauseKey:
    """The options that say which calls."""
    key = PauseKey(provider or "", model or "", call_type or "", org or "")
    if everything == (key != PauseKey()):
        raise typer.BadParameter(
            "give --all, or at least one of --provider, --model, --call-type and --org"
        )
    return key


@with_options(key=key_of_options)
def pause(
    context: typer.Context,
    key: PauseKey,
    reason: Reason,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Stop sending calls of a provider, model, call type or organisation, or with --all every call.

    Of several names a call must have all. The calls wait and cost nothing. What is in flight ends.

    JSON: one pause as in `pauses`.
    """
    _begin(context, key, operator, reason, as_json)


@with_options(key=key_of_options)
def resume(
    context: typer.Context,
    key: PauseKey,
    reason: Reason,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    End a pause: name just what was paused. Calls that nothing else pauses are sent again.

    JSON: provider, model, call_type, org_id and is_freeze of the pause that has ended.
    """
    _end(context, key, operator, reason, as_json)


def freeze(
    context: typer.Context,
    org: FrozenOrg,
    reason: Reason,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Pause an organisation, and refuse its new submissions.

    JSON: one pause as in `pauses`.
    """
    _begin(context, PauseKey(org_id=org, is_freeze=True), operator, reason, as_json)


def unfreeze(
    context: typer.Context,
    org: FrozenOrg,
    reason: Reason,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    End the freeze of an organisation. Calls that nothing else pauses are sent again.

    JSON: as `resume`.
    """
    _end(context, PauseKey(org_id=org, is_freeze=True), operator, reason, as_json)


def list_pauses(context: typer.Context, as_json: AsJson = False) -> None:
    """
    List what is paused or frozen, oldest first, and how many calls wait for that.

    JSON: an array of provider, model, call_type, org_id, is_freeze, operator, reason, at and waiting. An empty name
    covers any.
    """
    with client_of(context) as client:
        pauses = client.operations.pauses()
    if as_json:
        print_json([_fields(p) for p in pauses])
        return
    columns = ("what", "!state", ">waiting", "!since", "operator", "reason")
    print_table(columns, map(_row, pauses), "nothing is paused")


def _begin(
    context: typer.Context, key: PauseKey, operator: str | None, reason: str, as_json: bool
) -> None:
    with client_of(context) as client:
        by = by_of(client, operator, reason)
        paused = services.pause(client.operations, key, client.catalogue.providers, by=by)
    made = paused.pause
    for name in paused.unused:
        print_note(f"no call has used {name} yet: check that the name is right")
    if as_json:
        print_json(_fields(made))
        return
    print_fields(
        {
            _state(made.key): str(made.key),
            "reason": made.by.reason,
            "operator": made.by.operator,
            "since": made.at,
            "calls waiting": made.waiting,
        }
    )


def _end(
    context: typer.Context, key: PauseKey, operator: str | None, reason: str, as_json: bool
) -> None:
    with client_of(context) as client:
        others = services.resume(client.operations, key, by=by_of(client, operator, reason))
    for other in others:
        print_note(f"still {_state(other.key)}: {other.key} ({other.by.reason})")
    if as_json:
        print_json(key)
        return
    print_fields({"unfrozen" if key.is_freeze else "resumed": str(key)})


def _state(key: PauseKey) -> str:
    return "frozen" if key.is_freeze else "paused"


def _row(p: Pause) -> tuple[object, ...]:
    return str(p.key), _state(p.key), p.waiting, p.at, p.by.operator, p.by.reason


def _fields(p: Pause) -> dict[str, object]:
    return {
        "provider": p.key.provider,
        "model": p.key.model,
        "call_type": p.key.call_type,
        "org_id": p.key.org_id,
        "is_freeze": p.key.is_freeze,
        "operator": p.by.operator,
        "reason": p.by.reason,
        "at": p.at,
        "waiting": p.waiting,
    }
