"""
The commands for developers: `up`, `demo`.

`callgate.cli` loads this file by its path, even for `--help`, so heavy modules are imported only when a command runs.
"""

from __future__ import annotations

import typer

from callgate.cli.options import AsJson


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, demo):
        app.command()(command)


def up(as_json: AsJson = False) -> None:
    """
    Run Postgres, Valkey, a worker and Flower for development, until Ctrl-C.

    JSON: one object with the URLs, once everything has started.
    """
    from devkit.up import run_up

    raise typer.Exit(run_up(as_json=as_json))


def demo(as_json: AsJson = False) -> None:
    """
    Run calls from submission to settlement on real servers and a real local model, without an API key.

    JSON: one object with the results.
    """
    from devkit.demo.run import run_demo

    raise typer.Exit(run_demo(as_json=as_json))
