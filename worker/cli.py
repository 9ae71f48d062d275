"""
The commands of the worker: `worker`, `migrate`, `flower`.

`callgate.cli` loads this file by its path, also for `--help`: so nothing of weight is imported before a command runs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from callgate.cli.output import AsJson, Yes, confirm, print_json, say


class QueueChoice(StrEnum):
    """Which queues a worker consumes."""

    CALL = "call"
    LOG = "log"
    ALL = "all"


class Revision(StrEnum):
    """Where a migration goes."""

    HEAD = "head"
    BASE = "base"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (worker, migrate, flower):
        app.command()(command)


def worker(
    queues: Annotated[QueueChoice, typer.Option("--queues", help="What to run.")] = QueueChoice.ALL,
    name: Annotated[str | None, typer.Option("--name", help="Before the @ of its name.")] = None,
) -> None:
    """Run calls, log them, or both, until a signal ends the process."""
    from callgate.adapters.catalogue_file import load_catalogue
    from callgate.adapters.providers.openai.environment import check_environment
    from config.settings import load_worker_settings

    settings = load_worker_settings()
    check_environment(load_catalogue(settings.catalogue).providers)
    # Only now: some of what was checked breaks imports.
    from worker.log_config import configure_logging
    from worker.main import QUEUES, run_worker

    configure_logging(as_json=settings.worker.log_json)
    raise typer.Exit(run_worker(settings, QUEUES[queues.value], name=name))


def migrate(
    to: Annotated[Revision, typer.Option("--to", help="base removes every table.")] = Revision.HEAD,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database to the newest schema, or back to none."""
    from callgate.adapters.postgres.url import shown
    from config.settings import load_worker_settings
    from worker.migrate import migrate as move

    url = load_worker_settings().database_url.get_secret_value()
    if to is Revision.BASE:
        confirm(f"Remove every call, cost and budget from {shown(url)}?", yes)
    to_run = move(url, to.value, on_wait=lambda what: say(f"waiting: {what}"))
    if as_json:
        print_json({"revision": to})
    else:
        say(f"the database is at {to}")
    for statements in to_run:
        say(f"a client's login has no limits of time yet; run as who may alter it: {statements}")


def flower() -> None:
    """Run Flower on callgate's app, until a signal ends the process."""
    from config.settings import load_worker_settings
    from worker.flower.dashboard import run_dashboard
    from worker.log_config import configure_logging

    settings = load_worker_settings()
    configure_logging(as_json=settings.worker.log_json)
    run_dashboard(settings)
