"""
The commands for developers: `up`, `demo`.

`callgate.cli` loads this file by its path, also for `--help`: so nothing of weight is imported before a command runs.
"""

from __future__ import annotations

import typer

from callgate.cli.options import AsJson


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, demo):
        app.command()(command)


def up(as_json: AsJson = False) -> None:
    """Run Postgres, Valkey, a worker and Flower for development, until Ctrl-C."""
    from devkit.up import run_up

    raise typer.Exit(run_up(as_json=as_json))


def demo(as_json: AsJson = False) -> None:
    """Run the whole life of some calls: real servers, a real local model, no API key."""
    from devkit.demo.run import run_demo

    raise typer.Exit(run_demo(as_json=as_json))
