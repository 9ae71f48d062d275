"""The Celery app of a worker process, of Flower and of the health check; composed with its runtime for a worker."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery
from celery.utils.imports import symbol_by_name

from callgate.adapters.broker.app import build_app
from callgate.adapters.broker.consumers import WORKER_COMMANDS, refused_command
from callgate.domain.errors import ConfigurationError
from config.celeryconfig import celery_config
from config.settings import WorkerSettings
from worker.bootstrap import bootstrap
from worker.celery_ext.consumer import connect_unprocessable_sink
from worker.celery_ext.pool import run_on_loop
from worker.runtime import Runtime, attach

TASKS = ("tasks.call:Call", "tasks.log_call:LogCall", "tasks.sweep:Sweep")
"""By path: tasks stand above the worker in the order of imports."""
TRANSPORT = "worker.celery_ext.redis_transport:Transport"

Compose = Callable[[WorkerSettings, Celery], Runtime]
"""Makes the runtime of a worker process; it may also set another `broker_transport` on the app."""


def worker_app(settings: WorkerSettings) -> Celery:
    """Build an app with a worker's settings and tasks."""
    app = build_app(
        settings.broker_url.get_secret_value(),
        timeout_s=settings.broker_timeout_s,
        prefix=settings.broker_prefix,
    )
    app.conf.update(celery_config(settings.worker))
    return app


def register_tasks(app: Celery) -> None:
    """Add callgate's tasks to an app."""
    for path in TASKS:
        app.register_task(symbol_by_name(path)())


def composed_app(settings: WorkerSettings, compose: Compose = bootstrap) -> Celery:
    """
    Build an app whose tasks find their runtime.

    Raises:
        ConfigurationError, LedgerUnavailable
    """
    app = worker_app(settings)
    # Any other transport ends the worker when the connection to the broker is lost.
    app.conf.broker_transport = TRANSPORT
    register_tasks(app)
    runtime = compose(settings, app)
    runtime.check()
    _check_broker_rights(app)
    attach(app, runtime)
    run_on_loop(app, runtime.running)
    connect_unprocessable_sink(app, runtime.operations.keep_unprocessable)
    return app


def _check_broker_rights(app: Celery) -> None:
    """
    Refuse to start under a broker user without a worker's rights. An unavailable broker is waited for later.

    Raises:
        ConfigurationError: The broker refused a command.
    """
    try:
        refused = refused_command(app, WORKER_COMMANDS)
    except Exception:
        # The worker connects later, and waits for the broker then.
        return
    if refused:
        raise ConfigurationError(
            f"the user of CALLGATE_BROKER_URL may not run {refused}: docs/security.md lists what it needs"
        )
