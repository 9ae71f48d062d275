"""
The commands of the worker: `worker`, `migrate`, `flower`.

`callgate.cli` loads this file by its path, even for `--help`, so heavy modules are imported only when a command runs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from callgate.cli.options import AsJson, Yes
from callgate.cli.output import confirm, print_json, print_note


class QueueChoice(StrEnum):
    """Which queues a worker consumes."""

    CALL = "call"
    LOG = "log"
    ALL = "all"


class Revision(StrEnum):
    """The target of a migration."""

    HEAD = "head"
    BASE = "base"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (worker, migrate, flower):
        app.command()(command)


def worker(
    queues: Annotated[
        QueueChoice, typer.Option("--queues", help="Which queues to consume.")
    ] = QueueChoice.ALL,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Its name before the @ [default: callgate, callgate-2, ...]."),
    ] = None,
) -> None:
    """Run calls, settle them, or both, until a signal ends the process."""
    from callgate.adapters.catalogue_file import load_catalogue
    from callgate.adapters.providers.http.environment import check_environment
    from config.settings import load_worker_settings

    settings = load_worker_settings()
    check_environment(load_catalogue(settings.catalogue).providers)
    # Only now: some of what was checked breaks imports.
    from worker.log_config import configure_logging
    from worker.main import QUEUES, run_worker

    options = settings.worker
    counter = configure_logging(as_json=options.log_json, with_successes=options.log_successes)
    with counter.flushing():
        raise typer.Exit(run_worker(settings, QUEUES[queues.value], name=name))


def migrate(
    to: Annotated[Revision, typer.Option("--to", help="base removes every table.")] = Revision.HEAD,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """
    Bring the database to the newest schema, or remove it.

    JSON: revision, head or base.
    """
    from callgate.adapters.postgres.url import shown
    from config.settings import load_worker_settings
    from worker.migrate import migrate as move

    url = load_worker_settings().database_url.get_secret_value()
    if to is Revision.BASE:
        confirm(f"Remove every call, cost and budget from {shown(url)}?", yes)
    left_to_do = move(url, to.value, on_wait=lambda what: print_note(f"waiting: {what}"))
    if as_json:
        print_json({"revision": to})
    else:
        print_note(f"the database is at {to}")
    for line in left_to_do:
        print_note(line)


def flower(
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Change nothing, whatever the settings say.")
    ] = False,
    url_prefix: Annotated[
        str | None,
        typer.Option(
            "--url-prefix", "--url_prefix", help="The path under which a proxy shows Flower."
        ),
    ] = None,
) -> None:
    """Run Flower with callgate's pages, until a signal ends the process."""
    from config.settings import load_worker_settings
    from worker.flower.dashboard import run_dashboard
    from worker.log_config import configure_logging

    settings = load_worker_settings().with_flower(is_read_only=read_only, url_prefix=url_prefix)
    with configure_logging(as_json=settings.worker.log_json).flushing():
        run_dashboard(settings)
