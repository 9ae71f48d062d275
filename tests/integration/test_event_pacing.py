"""Task events of a real worker process: all of them, in few messages."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

from celery import Celery

from tests.support.celery_worker import Note, a_worker
from tests.support.valkey import Valkey, until

TASKS = 200


def test_all_events_arrive_in_few_messages(
    valkey: Valkey, app: Celery, tmp_path: Path, note: Note
) -> None:
    """Including the last events before a shutdown."""
    seen: Counter[str] = Counter()

    def count(event: dict[str, Any]) -> None:
        seen[event["type"]] += 1

    with (
        a_worker(
            valkey, tmp_path, "-E", store_unprocessable=True, worker_concurrency=TASKS
        ) as worker,
        app.connection() as connection,
    ):
        receiver = app.events.Receiver(connection, handlers={"*": count})
        stream = receiver.itercapture(limit=None, timeout=10, wakeup=False)
        next(stream)
        before = publishes(valkey)
        for number in range(TASKS):
            note(str(number), 1)
        until(lambda: len(valkey.words("started")) == TASKS)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        sent = publishes(valkey) - before
        until(lambda: next(stream, None) or seen["task-succeeded"] == TASKS)

    assert seen["task-received"] == seen["task-started"] == seen["task-succeeded"] == TASKS
    assert sent < TASKS


def publishes(valkey: Valkey) -> int:
    """How many messages were published to subscribers so far."""
    return int(valkey.client.info("commandstats").get("cmdstat_publish", {}).get("calls", 0))
