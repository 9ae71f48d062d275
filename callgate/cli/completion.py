"""`callgate completion`: the script with which a shell completes commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import completion_init, get_completion_script

ASKED_BY = "_CALLGATE_COMPLETE"
"""The variable with which the script asks this program for words."""


class Shell(StrEnum):
    """Shells that Typer writes a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def register(app: typer.Typer) -> None:
    """Add the command, and answer the scripts that it printed."""
    # Without this Typer's own words for the variable are not known.
    completion_init()
    app.command()(completion)


def completion(
    shell: Annotated[Shell, typer.Argument(help="Which shell.", metavar="SHELL")],
) -> None:
    """
    Print the script that completes commands and options: bash, zsh or fish.

    For bash put this into ~/.bashrc: eval "$(callgate completion bash)"
    """
    typer.echo(
        get_completion_script(prog_name="callgate", complete_var=ASKED_BY, shell=shell.value)
    )
