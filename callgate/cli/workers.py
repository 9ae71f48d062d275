"""`callgate workers`: the worker processes by their leases in the ledger."""

from __future__ import annotations

from typing import Any

import typer

from callgate.cli.options import AsJson
from callgate.cli.output import client_of, print_json, print_note, print_table
from callgate.domain.worker_lines import WorkerLine, odd_parts, usual_parts

COLUMNS = (
    *("worker", "!state", "!since", ">renewed", ">slots", ">in flight", "!version", "!schema"),
    "differs in",
)
NONE = "no worker has a lease: start `callgate worker`"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    workers = typer.Typer(no_args_is_help=True, help="Show the worker processes.")
    workers.command("list")(list_workers)
    app.add_typer(workers, name="workers")


def list_workers(context: typer.Context, as_json: AsJson = False) -> None:
    """
    List worker processes by their leases, live ones first, and in what they differ from most of them.

    A silent one froze, was killed, or cannot reach the ledger; one that stopped in order is not listed.

    JSON: an array of worker_id, began_at, silent_s (since it renewed its lease), is_live, slots (null: not known),
    in_flight, version, schema_revision, settings and catalogue (digests; null: none is published), and differs_in.
    """
    with client_of(context) as client:
        lines = client.operations.worker_lines()
    usual = usual_parts(lines)
    if as_json:
        print_json([_fields(line, odd_parts(line, usual)) for line in lines])
        return
    print_table(COLUMNS, [_row(line, odd_parts(line, usual)) for line in lines], NONE)
    slots = [line.slots or 0 for line in lines if line.is_live]
    if slots:
        print_note(f"{len(slots)} live, with {sum(slots)} slots")


def _row(line: WorkerLine, odd: tuple[str, ...]) -> tuple[object, ...]:
    made_of = line.fingerprint
    return (
        *(line.worker_id, "live" if line.is_live else "silent", line.began_at),
        *(f"{line.silent_s:.0f} s ago", "?" if line.slots is None else line.slots, line.in_flight),
        *((made_of.version, made_of.schema_revision) if made_of else ("?", "?")),
        ", ".join(odd).replace("_", " "),
    )


def _fields(line: WorkerLine, odd: tuple[str, ...]) -> dict[str, Any]:
    made_of = line.fingerprint
    return {
        "worker_id": line.worker_id,
        "began_at": line.began_at,
        "silent_s": line.silent_s,
        "is_live": line.is_live,
        "slots": line.slots,
        "in_flight": line.in_flight,
        "version": made_of and made_of.version,
        "schema_revision": made_of and made_of.schema_revision,
        "settings": made_of and made_of.settings,
        "catalogue": made_of and made_of.catalogue,
        "differs_in": odd,
    }
