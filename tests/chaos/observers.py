"""Observers of a trial: the budgets while it runs, and the link messages at the pipeline."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter, defaultdict
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import psycopg2
from redis import Redis
from redis.exceptions import RedisError

from devkit.servers.embedded import Server
from tests.support.pipeline import QUEUE

SAMPLE_S = 0.01
JOIN_S = 30.0
PAUSE_MS = 5_000
LINK_OF_TASK = {"pipeline.store": "link", "pipeline.complain": "link_error"}
"""Which link of a call the clients of chaos set to which task of the pipeline."""
NOTHING_SEEN = -(2**62)


class _Sampler:
    """A thread that takes samples until the end of a `with` block."""

    def __init__(self, name: str) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._is_over.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        """Take one sample."""
        raise NotImplementedError


class BudgetObserver(_Sampler):
    """Samples the largest spent + held - limit of all budgets, also across outages."""

    def __init__(self, database_url: str) -> None:
        super().__init__("budget-observer")
        self._url = _plain(database_url)
        self._connection: Any = None
        self.overrun_nano_usd = NOTHING_SEEN
        self.samples = 0
        _run(self._url, Path(__file__).with_name("observers.sql").read_text())

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._disconnect()

    def _sample(self) -> None:
        try:
            if self._connection is None:
                self._connection = psycopg2.connect(self._url, connect_timeout=2)
                self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                cursor.execute(
                    "SELECT max(spent_nano_usd + reserved_nano_usd - limit_nano_usd) FROM budget"
                )
                (overrun,) = cursor.fetchone()
        except psycopg2.Error:
            self._disconnect()
            return
        if overrun is not None:
            self.samples += 1
            self.overrun_nano_usd = max(self.overrun_nano_usd, overrun)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None


class LinkCollector(_Sampler):
    """
    Takes link messages from the queue of the pipeline, like a worker of the pipeline.

    It reads messages before it removes them, so that it loses none. Messages in the queue of the pipeline count as
    delivered, also if the broker is wiped afterwards. So they are collected up to that moment.
    """

    def __init__(self, broker_url: str) -> None:
        super().__init__("link-collector")
        self._lock = threading.Lock()
        self._redis = Redis.from_url(broker_url, socket_timeout=2, socket_connect_timeout=2)
        self._message_ids: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._deliveries: Counter[str] = Counter()

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._redis.close()

    def delivered(self) -> dict[tuple[str, str], int]:
        """Return the number of different messages so far, by document and by link or link_error."""
        with self._lock:
            return {key: len(ids) for key, ids in self._message_ids.items()}

    def deliveries_max(self) -> int:
        """Return how often one message was delivered, at most. Counted when removed: a broker may refuse removals."""
        with self._lock:
            return max(self._deliveries.values(), default=0)

    def collect_and_flush(self) -> None:
        """Collect the messages of the pipeline and flush the broker, in one transaction."""
        with self._lock, self._redis.pipeline(transaction=True) as both:
            both.lrange(QUEUE, 0, -1)
            both.flushall()
            messages, _ = both.execute()
            self._keep(messages)

    def collect_and_kill(self, valkey: Server) -> None:
        """Collect the messages of the pipeline and kill the broker, with writes paused in between."""
        with self._lock:
            self._redis.execute_command("CLIENT", "PAUSE", PAUSE_MS, "WRITE")
            self._keep(self._messages(0))
            valkey.kill()

    def _sample(self) -> None:
        with self._lock, suppress(RedisError):
            messages = self._messages(-500)
            ids = self._keep(messages)
            if messages:
                self._redis.ltrim(QUEUE, 0, -len(messages) - 1)
                self._deliveries.update(ids)

    def _messages(self, first: int) -> list[bytes]:
        """Read the messages of the pipeline, from an index to the oldest."""
        messages: list[Any] = self._redis.lrange(QUEUE, first, -1)
        return messages

    def _keep(self, messages: list[bytes]) -> list[str]:
        """Store the messages by document and link; return their ids."""
        ids = []
        for message in messages:
            envelope = json.loads(message)
            args, _, _ = json.loads(base64.b64decode(envelope["body"]))
            headers = envelope["headers"]
            ids.append(headers["id"])
            self._message_ids[args[1], LINK_OF_TASK[headers["task"]]].add(headers["id"])
        return ids


def drop_observers(database_url: str) -> None:
    """Drop what `BudgetObserver` created in a database that other tests use."""
    _run(_plain(database_url), "DROP SCHEMA IF EXISTS chaos CASCADE")


def _run(url: str, statements: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statements)


def _plain(database_url: str) -> str:
    """Return a database URL for psycopg2."""
    return database_url.replace("+psycopg2", "")
