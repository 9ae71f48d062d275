"""Those who watch a trial from outside: the budgets while it runs, and the links as they reach the pipeline."""

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
"""What the clients of chaos give which task of the pipeline for."""
NOTHING_SEEN = -(2**62)


class _Watch:
    """A thread that looks again and again, until the end of a `with` block."""

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
            self._look()

    def _look(self) -> None:
        """Take one sample; each watch has its own way."""
        raise NotImplementedError


class BudgetObserver(_Watch):
    """Samples the greatest spent + held - limit of all budgets, through every outage."""

    def __init__(self, database_url: str) -> None:
        super().__init__("budget-watch")
        self._url = _plain(database_url)
        self._connection: Any = None
        self.overrun_nano_usd = NOTHING_SEEN
        self.samples = 0
        _run(self._url, Path(__file__).with_name("witness.sql").read_text())

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._disconnect()

    def _look(self) -> None:
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


class LinkCollector(_Watch):
    """
    Takes the messages of links from the pipeline's queue, as the pipeline's worker would.

    It looks before it removes, so that not one is lost in its own hands. What was in the pipeline's own queue when its
    broker was wiped was told, and is not callgate's to tell again: so it listens up to that very moment.
    """

    def __init__(self, broker_url: str) -> None:
        super().__init__("link-ear")
        self._lock = threading.Lock()
        self._redis = Redis.from_url(broker_url, socket_timeout=2, socket_connect_timeout=2)
        self._heard: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._tellings: Counter[str] = Counter()

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._redis.close()

    def told(self) -> dict[tuple[str, str], int]:
        """Different messages so far, by document and by link or link_error."""
        with self._lock:
            return {key: len(ids) for key, ids in self._heard.items()}

    def tellings_max(self) -> int:
        """How often the same message came, at most: counted as it is taken, for a broker may refuse to give it up."""
        with self._lock:
            return max(self._tellings.values(), default=0)

    def hear_and_flush(self) -> None:
        """Take what the pipeline's queue holds and have the broker forget everything, with nothing in between."""
        with self._lock, self._redis.pipeline(transaction=True) as both:
            messages, _ = both.lrange(QUEUE, 0, -1).flushall().execute()
            self._keep(messages)

    def hear_and_kill(self, valkey: Server) -> None:
        """Take what the pipeline's queue holds and kill the broker; nothing can be published in between."""
        with self._lock:
            self._redis.execute_command("CLIENT", "PAUSE", PAUSE_MS, "WRITE")
            self._keep(self._redis.lrange(QUEUE, 0, -1))
            valkey.kill()

    def _look(self) -> None:
        with self._lock, suppress(RedisError):
            messages = self._redis.lrange(QUEUE, -500, -1)
            ids = self._keep(messages)
            if messages:
                self._redis.ltrim(QUEUE, 0, -len(messages) - 1)
                self._tellings.update(ids)

    def _keep(self, messages: list[bytes]) -> list[str]:
        """Note what was told by which link; return the messages' ids."""
        ids = []
        for message in messages:
            envelope = json.loads(message)
            args, _, _ = json.loads(base64.b64decode(envelope["body"]))
            headers = envelope["headers"]
            ids.append(headers["id"])
            self._heard[args[1], LINK_OF_TASK[headers["task"]]].add(headers["id"])
        return ids


def forget(database_url: str) -> None:
    """Take away what `BudgetWatch` put into a database that others go on with."""
    _run(_plain(database_url), "DROP SCHEMA IF EXISTS chaos CASCADE")


def _run(url: str, statements: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statements)


def _plain(database_url: str) -> str:
    """A database URL as the driver itself takes it."""
    return database_url.replace("+psycopg2", "")
