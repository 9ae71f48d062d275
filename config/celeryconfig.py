"""The settings of a worker's Celery app, in addition to the client's (`callgate.adapters.broker.app`)."""

from __future__ import annotations

from typing import Any

from config.settings import WorkerOptions


def celery_config(worker: WorkerOptions) -> dict[str, Any]:
    """Return Celery's settings for a process that runs calls."""
    return {
        "worker_pool": "worker.celery_ext.pool:AsyncioPool",
        "worker_concurrency": worker.concurrency,
        "callgate_drain_s": worker.shutdown_timeout_s,
        "callgate_task_threads_max": worker.task_threads_max,
        # A message counts as taken until its call is safe in the ledger, and so limits the intake of a worker.
        "task_acks_late": True,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "worker_prefetch_multiplier": 1,
        "worker_eta_task_limit": 100,
        # The ledger handles duplicates. Cancelling would leave attempts whose result is unknown.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_disable_rate_limits": True,
        "worker_soft_shutdown_timeout": 0,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
    }
