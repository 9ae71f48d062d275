"""A pipeline like that of a user: a Celery app on callgate's broker, with tasks for links."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery

QUEUE = "pipeline"
FILE = "PIPELINE_FILE"


def build_app(broker_url: str) -> Celery:
    """Return the app of the pipeline. Its tasks append their arguments to the file that `PIPELINE_FILE` names."""
    app = Celery("pipeline", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
    )

    @app.task(name="pipeline.store", bind=True, shared=False)
    def store(self: Any, outcome: dict[str, str], document_id: str) -> None:
        _append(self.request.id, "store", outcome, document_id)

    @app.task(name="pipeline.complain", bind=True, shared=False)
    def complain(self: Any, outcome: dict[str, str], document_id: str) -> None:
        _append(self.request.id, "complain", outcome, document_id)

    return app


def _append(task_id: str, task: str, outcome: dict[str, str], document_id: str) -> None:
    line = json.dumps({"id": task_id, "task": task, "document_id": document_id, **outcome})
    with Path(os.environ[FILE]).open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    build_app(os.environ["CALLGATE_BROKER_URL"]).worker_main(
        ["worker", "-P", "solo", "-l", "INFO", "--without-gossip", "--without-mingle"]
    )
