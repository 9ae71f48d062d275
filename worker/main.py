"""Run a worker process: compose it, start Celery's worker in this process, end with its exit code."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from celery import Celery
from structlog.types import EventDict

from callgate.adapters.broker.app import CALL_QUEUE, LOG_QUEUE
from callgate.adapters.broker.consumers import WORKER_COMMANDS, refused_command
from callgate.cli.output import escape_control_chars, escape_what_cannot_be_written
from callgate.domain.errors import ConfigurationError
from config.settings import WorkerSettings
from worker.bootstrap import Runtime, bootstrap, worker_app
from worker.celery_ext.consumer import connect_stray_handlers
from worker.celery_ext.pool import run_on_loop
from worker.celery_ext.request import allow_only_inspection_commands
from worker.process import attach

GIL_SWITCH_S = 0.0005
"""
How long one thread may keep the interpreter while another waits for it.

At Python's default of 5 ms, each thing the hub does for a call may wait that long for the busy loop thread.
"""
Compose = Callable[[WorkerSettings, Celery], Runtime]
"""Makes the services of a worker process; it may also choose another `broker_transport` for the app."""
QUEUES = {"call": (CALL_QUEUE,), "log": (LOG_QUEUE,), "all": (CALL_QUEUE, LOG_QUEUE)}


def run_worker(
    settings: WorkerSettings,
    queues: Sequence[str],
    *,
    name: str | None = None,
    compose: Compose = bootstrap,
) -> int:
    """
    Run calls, log them, or both, until a signal ends the process.

    Args:
        compose: Makes the services, with other adapters than the real ones where a test wants them.

    Returns:
        The exit code of Celery's worker.

    Raises:
        ConfigurationError, LedgerUnavailable: The worker did not start.
    """
    sys.setswitchinterval(GIL_SWITCH_S)
    app = composed_app(settings, compose)
    # Before there is a worker, whose ears are made with it.
    allow_only_inspection_commands(app)
    worker = app.Worker(
        queues=list(queues),
        hostname=f"{name or 'callgate'}@{socket.gethostname()}",
        without_gossip=True,
        without_mingle=True,
        loglevel="INFO",
    )
    worker.start()
    return int(worker.exitcode or 0)


def composed_app(settings: WorkerSettings, compose: Compose = bootstrap) -> Celery:
    """A Celery app whose tasks find their services."""
    app = worker_app(settings)
    # With another transport a lost broker ends the worker.
    app.conf.broker_transport = "worker.celery_ext.redis_transport:Transport"
    app.loader.import_default_modules()
    app.finalize()
    services = compose(settings, app)
    services.check()
    check_broker_rights(app)
    attach(app, services)
    run_on_loop(app, services.running)
    connect_stray_handlers(app, services.operations.keep_unprocessable)
    return app


def check_broker_rights(app: Celery) -> None:
    """
    Refuse to start under a broker user that may not do what a worker does; a broker that is away is waited for later.

    Raises:
        ConfigurationError: The broker refused a command.
    """
    try:
        refused = refused_command(app, WORKER_COMMANDS)
    except Exception:
        # Whatever it was, the worker goes on to connect, and waits.
        return
    if refused:
        raise ConfigurationError(
            f"the user of CALLGATE_BROKER_URL may not run {refused}: docs/security.md lists what it needs"
        )


def _spell_out(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """What clients, providers and strangers on the broker chose must not steer the terminal that shows the log."""
    return {
        name: escape_control_chars(value, kept="\n\t") if isinstance(value, str) else value
        for name, value in event.items()
    }


def configure_logging(*, as_json: bool) -> None:
    """Send structlog and Celery's own log lines to stderr in one form."""
    escape_what_cannot_be_written()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = (
        [structlog.processors.JSONRenderer()]
        if as_json
        else [_spell_out, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *renderers,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # One line per HTTP request or task is a second log of what ai_call_log has.
    for name in ("httpx", "httpx2", "openai", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
