"""Worker processes of the worker tests, started with the command of Celery."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery

from tests.support.processes import CHECKOUT, Process
from tests.support.valkey import Valkey
from tests.support.waiting import until

Note = Callable[..., Any]
"""Publishes the task `note(word, sleep_s)` of the worker tests' app."""


class Worker(Process):
    """A `celery worker` on the app of the worker tests."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        command = [sys.executable, "-m", "celery", "-A", "tests.support.worker_app", "worker"]
        quiet = ["--without-gossip", "--without-mingle", "-l", "WARNING"]
        path = os.pathsep.join([str(folder), str(CHECKOUT)])
        super().__init__("worker", [*command, *quiet, *options], {"PYTHONPATH": path}, folder)

    def has_logged(self, event: str, *fields: str) -> bool:
        """Whether one line of the log has this event and these fields (`name=value`)."""
        return any(
            event in line and all(field in line.split() for field in fields)
            for line in self.output().splitlines()
        )

    def threads(self) -> int:
        """Return the number of its threads."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))


@contextmanager
def a_worker(
    valkey: Valkey, folder: Path, *options: str, is_ready: bool = True, **conf: Any
) -> Iterator[Worker]:
    """Run a worker with the given settings; yield it when it consumes, unless `is_ready` is False."""
    folder.mkdir(exist_ok=True)
    settings = {
        "broker_url": valkey.url,
        "broker_connection_retry_on_startup": True,
        "broker_transport": "worker.celery_ext.redis_transport:Transport",
        "broker_transport_options": {"priority_steps": [0]},
        "callgate_drain_s": 20,
        "task_acks_late": True,
        "task_default_queue": "test",
        "task_ignore_result": True,
        "worker_concurrency": 4,
        "worker_disable_rate_limits": True,
        "worker_pool": "worker.celery_ext.pool:AsyncioPool",
        "worker_prefetch_multiplier": 1,
        **conf,
    }
    lines = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    (folder / "worker_conf.py").write_text(lines)
    worker = Worker(folder, list(options))
    try:
        if is_ready:
            until(lambda: _answers(valkey, worker), 40)
        yield worker
    finally:
        worker.kill()


def client_of(valkey: Valkey) -> Celery:
    """Return an app that publishes tasks."""
    app = Celery("publisher", broker=valkey.url, set_as_current=False)
    app.conf.task_default_queue = "test"
    app.conf.broker_transport_options = {"priority_steps": [0]}
    return app


def _answers(valkey: Valkey, worker: Worker) -> bool:
    assert worker.is_alive(), worker.output()
    # A worker that consumes has one blocking pop on its queues.
    clients = valkey.client.client_list()
    return any(client["cmd"] == "blmpop" for client in clients)
