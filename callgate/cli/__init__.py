"""
The command line: parse, call a service, print.

Answers go to stdout, everything else to stderr. With `--json` stdout holds exactly one object or array; each command's
help describes its shape. That of an error is `{"error": {"code", "message", ...}}`; its line is on stderr as well.
Exit codes: 0 done; 1 an error of callgate, or a failed check; 2 wrong usage or settings; 130 interrupted.

In a checkout, and with `callgate-worker`, `worker/cli.py` adds the commands of the worker, and `devkit/cli.py` those
for developers. Settings are read, and Celery and SQLAlchemy imported, only when a command runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.main import get_command

from callgate import __version__
from callgate.cli import (
    actions,
    alerts,
    breakers,
    budgets,
    calls,
    completion,
    costs,
    dead_letters,
    doctor,
    elsewhere,
    estimate,
    limits,
    pauses,
    providers,
    redrives,
    retention,
    tenants,
    unknown,
    workers,
)
from callgate.cli.checkout import CHECKOUT, has_worker, module_at
from callgate.cli.output import (
    OpenClient,
    escape_what_cannot_be_written,
    print_error,
    print_json,
    print_note,
)
from callgate.cli.renamed import new_arguments
from callgate.domain.errors import CallgateError, ConfigurationError

if TYPE_CHECKING:
    from callgate.client import Client

CHECKOUT_COMMANDS = ("worker/cli.py", "devkit/cli.py")
"""Files beside the library that add commands. The image has no devkit."""


USAGE_ERROR: Any = typer.BadParameter.__base__
"""The class of all errors of usage. Typer exports only this subclass of it."""


def main() -> NoReturn:
    """Run the command line of this process."""
    escape_what_cannot_be_written()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], open_client: OpenClient | None = None) -> int:
    """
    Run one command.

    Args:
        open_client: Makes the client of the command; by default from the environment.

    Returns:
        The exit code.
    """
    command, is_json = get_command(build_app()), "--json" in arguments
    try:
        code = command.main(
            new_arguments(arguments),
            prog_name="callgate",
            standalone_mode=False,
            obj=open_client or client_from_env,
        )
    except CallgateError as exc:
        print_error(exc, as_json=is_json)
        return 2 if isinstance(exc, ConfigurationError) else 1
    except USAGE_ERROR as exc:
        _print_usage_error(exc, as_json=is_json)
        return int(exc.exit_code)
    except typer.Abort:
        return 1
    except BrokenPipeError:
        # The reader has closed the pipe. The rest of the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(bool(exc.code))
    return code if isinstance(code, int) else 0


def build_app() -> typer.Typer:
    """Build the commands of the library, and those that a checkout or `callgate-worker` adds."""
    app = typer.Typer(
        name="callgate",
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for group in (
        *(
            calls,
            estimate,
            budgets,
            costs,
            unknown,
            breakers,
            limits,
            pauses,
            dead_letters,
            redrives,
            retention,
        ),
        *(actions, alerts, providers, tenants, workers, doctor, completion),
    ):
        group.register(app)
    if not has_worker():
        elsewhere.register(app)
        return app
    for file in CHECKOUT_COMMANDS:
        path = CHECKOUT / file
        if path.exists():
            module_at(path).register(app)
    return app


def client_from_env() -> Client:
    """
    Build the client of this process; it logs to stderr.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    import structlog

    from callgate.client import Client

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    return Client.from_env()


def _print_usage_error(error: Any, *, as_json: bool) -> None:
    """Print wrong usage as one line on stderr, like every other error, and say where the help is."""
    if type(error).__name__ == "NoArgsIsHelpError":
        # The help was printed already.
        return
    about, message = error.ctx.command_path if error.ctx else "callgate", error.format_message()
    print_note(f"error: wrong_usage: {message} ({about} -h says more)")
    if as_json:
        print_json({"error": {"code": "wrong_usage", "message": message}})


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"callgate {__version__}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """LLM calls as Celery tasks: none paid twice, no budget overrun, none unrecorded, none lost."""
