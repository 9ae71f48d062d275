"""The Celery app of every callgate process: client, worker, Flower and command line."""

from __future__ import annotations

import os
from ssl import CERT_REQUIRED
from typing import Any

from celery import Celery, bootsteps
from kombu import Exchange, Queue, pools

from callgate.adapters.broker.control import BoundedClock, Control

CALL_QUEUE = "callgate.call"
EXPRESS_QUEUE = "callgate.call.express"
"""Workers take calls from here first."""
LOG_QUEUE = "callgate.log"
CALL_TASK = "callgate.call"
LOG_TASK = "callgate.log_call"
SWEEP_TASK = "callgate.sweep"
CONNECTIONS_MAX = 200
"""Connections of one process to the broker. Kombu's default is 10, and it raises when they are in use."""


GUARDED_TRANSPORT = "callgate.adapters.broker.guarded_transport:Transport"
"""The transport of every process."""
RUNTIME = "callgate_runtime"
"""The attribute of an app that holds the runtime of `callgate worker`."""


class StockWorkerRefused(bootsteps.Step):  # type: ignore[misc]
    """Ends a stock Celery worker on this app: it has no runtime, and would lose every message."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        if getattr(worker.app, RUNTIME, None) is None:
            raise SystemExit(
                "error: this is callgate's own Celery app, and its calls need what `callgate worker` composes:"
                " start that instead of `celery worker`; tasks of yours need an app of their own"
            )


def queues() -> tuple[Queue, ...]:
    """Return all queues. Direct exchanges need no stored binding on Redis, so no binding can be evicted."""
    exchange = Exchange("callgate", type="direct", durable=True)
    return (
        Queue(CALL_QUEUE, exchange, routing_key=CALL_QUEUE),
        Queue(EXPRESS_QUEUE, exchange, routing_key=EXPRESS_QUEUE),
        Queue(LOG_QUEUE, exchange, routing_key=LOG_QUEUE),
    )


def broker_options(*, timeout_s: float, prefix: str = "") -> dict[str, Any]:
    """
    Return kombu's transport options for Redis and Valkey.

    Source: kombu 5.7, `kombu/transport/redis.py`. `retry_on_timeout` stays off: a repeated LPUSH is a second message,
    and the option would disable batched publishing.
    """
    return {
        "priority_steps": [0],
        "queue_order_strategy": "round_robin",
        "global_keyprefix": prefix,
        "max_connections": CONNECTIONS_MAX,
        "socket_timeout": max(timeout_s, 5.0),
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


def build_app(broker_url: str, *, timeout_s: float, prefix: str = "") -> Celery:
    """Build an app that can publish; it does not become the current app, and does not connect yet."""
    app = Celery("callgate", broker=broker_url, set_as_current=False, autofinalize=True)
    app.clock, app.control_cls = BoundedClock(), Control
    app.conf.update(
        broker_transport=GUARDED_TRANSPORT,
        broker_transport_options=broker_options(timeout_s=timeout_s, prefix=prefix),
        # By default kombu checks no certificate for rediss://, and with a custom transport it does not even use TLS.
        broker_use_ssl=broker_url.startswith("rediss://")
        and {"ssl_cert_reqs": CERT_REQUIRED, "ssl_check_hostname": True},
        broker_connection_timeout=timeout_s,
        broker_pool_limit=64,
        broker_pool_acquire_timeout=timeout_s,
        task_publish_retry=False,
        task_queues=queues(),
        task_default_queue=CALL_QUEUE,
        task_default_exchange="callgate",
        task_default_routing_key=CALL_QUEUE,
        task_create_missing_queues=False,
        task_routes={LOG_TASK: {"queue": LOG_QUEUE}, "callgate.*": {"queue": CALL_QUEUE}},
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=True,
        task_protocol=2,
        task_repr_maxlevels=1,
        enable_utc=True,
    )
    app.steps["worker"].add(StockWorkerRefused)
    app.callgate_pid = os.getpid()
    return app


def in_this_process(app: Celery) -> Celery:
    """
    Return the app, in a forked child without the inherited connection pools and their locks.

    Kombu and Celery do the same, but only after a fork by Celery's own prefork pool.
    """
    if app.callgate_pid != os.getpid():
        app.callgate_pid = os.getpid()
        # Kept, because garbage collection would close them, under locks that no thread of this process will release.
        app.callgate_inherited = [*pools.producers.values(), *pools.connections.values()]
        pools.producers.clear()
        pools.connections.clear()
        app._after_fork()
        app.__dict__.pop("control", None)
    return app
