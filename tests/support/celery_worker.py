"""Real worker processes for tests: started with Celery's own command, signalled, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery

from tests.support.valkey import Valkey, until

REPOSITORY = Path(__file__).parents[2]
Note = Callable[..., Any]
"""Publishes the task `note(word, sleep_s)` of the worker tests' app."""


class Worker:
    """A `celery worker` on the app of the worker tests."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        self._log = folder / "worker.log"
        command = [sys.executable, "-m", "celery", "-A", "tests.support.worker_app", "worker"]
        quiet = ["--without-gossip", "--without-mingle", "-l", "WARNING"]
        path = os.pathsep.join([str(folder), str(REPOSITORY)])
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [*command, *quiet, *options],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": path},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self) -> str:
        """Return what the worker has printed so far."""
        return self._log.read_text(errors="replace")

    def has_logged(self, event: str, *fields: str) -> bool:
        """Whether one line of the log has this event and these fields (`name=value`)."""
        return any(
            event in line and all(field in line.split() for field in fields)
            for line in self.log().splitlines()
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker."""
        self.process.send_signal(number)

    def exit_code(self, timeout_s: float = 20.0) -> int:
        """Wait until the worker has ended."""
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End the worker with kill -9, if it still runs."""
        self.process.kill()
        self.process.wait(10)

    def threads(self) -> int:
        """Count the worker's threads."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))


@contextmanager
def a_worker(
    valkey: Valkey, folder: Path, *options: str, is_ready: bool = True, **conf: Any
) -> Iterator[Worker]:
    """Run a worker with the given settings; it has started what it starts once it is yielded."""
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
    """Return an app that only publishes."""
    app = Celery("publisher", broker=valkey.url, set_as_current=False)
    app.conf.task_default_queue = "test"
    app.conf.broker_transport_options = {"priority_steps": [0]}
    return app


def _answers(valkey: Valkey, worker: Worker) -> bool:
    assert worker.process.poll() is None, worker.log()
    # The worker has one blocking pop on its queues once it consumes.
    clients = valkey.client.client_list()
    return any(client["cmd"] == "blmpop" for client in clients)
