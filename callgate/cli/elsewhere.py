"""Commands of `callgate-worker`, in an environment that has only the client: each says where it is."""

from __future__ import annotations

from collections.abc import Callable

import typer

from callgate.cli.checkout import WORKER
from callgate.domain.errors import ConfigurationError

COMMANDS = ("worker", "migrate", "flower", "up", "demo")
EXTRAS = {"up": "[embedded]", "demo": "[embedded,demo]"}


def register(app: typer.Typer) -> None:
    """Add the commands, without listing them."""
    any_words = {"ignore_unknown_options": True, "allow_extra_args": True}
    for name in COMMANDS:
        app.command(name, hidden=True, context_settings=any_words, add_help_option=False)(
            _saying_where(name)
        )


def _saying_where(name: str) -> Callable[[], None]:
    install = f"uv tool install '{WORKER}{EXTRAS.get(name, '')}'"

    def command() -> None:
        raise ConfigurationError(
            f"`callgate {name}` is in the distribution {WORKER}, for an environment of its own: {install}"
        )

    return command
