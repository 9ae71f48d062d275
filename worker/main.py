"""Run a worker process: compose its app, start Celery's worker in this process, end with its exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import structlog

from callgate.adapters.broker.app import CALL_QUEUE, EXPRESS_QUEUE, LOG_QUEUE
from callgate.adapters.catalogue_file import load_catalogue
from callgate.domain.catalogue import Catalogue
from config.settings import WorkerSettings
from worker.app import Compose, composed_app
from worker.bootstrap import bootstrap
from worker.celery_ext.request import allow_only_inspection_commands
from worker.node_name import node_name
from worker.status import credentials_look

log = structlog.get_logger(__name__)

GIL_SWITCH_S = 0.0005
"""
How long one thread may keep the interpreter while another waits for it.

At Python's default of 5 ms, each thing the hub does for a call may wait that long for the busy loop thread.
"""
QUEUES = {
    "call": (EXPRESS_QUEUE, CALL_QUEUE),
    "log": (LOG_QUEUE,),
    "all": (EXPRESS_QUEUE, CALL_QUEUE, LOG_QUEUE),
}


def say_missing_keys(settings: WorkerSettings, catalogue: Catalogue) -> None:
    """Say at start, in one line, that this process can send nothing: else its first failed call would."""
    fault = credentials_look(settings, catalogue, lambda: True, dict)()
    if fault is not None:
        log.error("keys.not_found", reason=fault.reason, todo=fault.todo)


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
        compose: Makes the runtime; a test passes one with other adapters.

    Returns:
        The exit code of Celery's worker.

    Raises:
        ConfigurationError, LedgerUnavailable: The worker did not start.
    """
    sys.setswitchinterval(GIL_SWITCH_S)
    app = composed_app(settings, compose)
    if CALL_QUEUE in queues:
        say_missing_keys(settings, load_catalogue(settings.catalogue))
    # Before the worker exists: it makes its control node when it is built.
    allow_only_inspection_commands(app)
    worker = app.Worker(
        queues=list(queues),
        hostname=node_name(name),
        without_gossip=True,
        without_mingle=True,
        loglevel="INFO",
    )
    worker.start()
    return int(worker.exitcode or 0)
