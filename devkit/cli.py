"""
The commands for developers: `up`, `demo`, `simulator`.

`callgate.cli` loads this file by its path, even for `--help`, so heavy modules are imported only when a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from callgate.cli.options import AsJson


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, demo, simulator):
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


def simulator(
    script: Annotated[
        Path | None,
        typer.Argument(metavar="[RULES.json]", help="A JSON file with a list of rules."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Of 127.0.0.1; 0 takes a free one.")
    ] = 8080,
    as_json: AsJson = False,
) -> None:
    """
    Run a simulated provider until Ctrl-C: OpenAI's and Anthropic's protocols, answers and faults by a script.

    Without rules each request gets an immediate, correct answer. For example, this file answers requests with the word
    invoice: the first with a 429, the others with an empty object.

        [{"match": {"text": "invoice"},
          "reply": [{"kind": "status", "status": 429, "retry_after_s": 2}, {"text": "{}"}]}]

    A worker calls it as a provider of the catalogue with `base_url = "http://127.0.0.1:8080/v1"` and
    `needs_key = false`. docs/simulator.md says how to script it.

    JSON: one object with the base_url and the port, once it listens.
    """
    from devkit.simulator.simulator import serve

    raise typer.Exit(serve(port, script, as_json=as_json))
