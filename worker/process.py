"""What tasks need to find: the services of the process they run in."""

from __future__ import annotations

from celery import Celery

from callgate.adapters.broker.app import SERVICES
from worker.bootstrap import Runtime


def attach(app: Celery, services: Runtime) -> None:
    """Make `services` those of every task of this app."""
    setattr(app, SERVICES, services)


def services_of(app: Celery) -> Runtime:
    """
    The services that were attached to an app.

    Raises:
        RuntimeError: The worker was not started with `callgate worker`.
    """
    services = getattr(app, SERVICES, None)
    if not isinstance(services, Runtime):
        raise RuntimeError("callgate's tasks run in a process started by `callgate worker`")
    return services
