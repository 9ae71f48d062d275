"""Batch tasks in real worker processes, in both pools that have threads."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.support.celery_worker import Worker, a_worker, client_of
from tests.support.valkey import Valkey, until

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("worker")]


@pytest.fixture(scope="module")
def worker(server: Valkey, pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker whose prefetch holds two batches of fifty and a full buffer."""
    folder = tmp_path_factory.mktemp("worker")
    with a_worker(server, folder, "-E", worker_pool=pool, worker_prefetch_multiplier=38) as worker:
        yield worker


def gather(app: Celery, *words: str, **options: Any) -> list[Any]:
    """Publish the batch task once per word."""
    return [app.send_task("gather", (word,), **options) for word in words]


def words_of(count: int) -> list[str]:
    """Return different words."""
    return [f"w{number}" for number in range(count)]


def test_a_lone_message_runs_at_once(valkey: Valkey, app: Celery) -> None:
    """`batch_wait_s`, five seconds here, is an upper bound and not a delay."""
    begun = time.monotonic()
    gather(app, "lone")
    until(lambda: valkey.words("gathered") == ["lone"])

    assert time.monotonic() - begun < 1
    until(valkey.is_empty)


def test_while_a_batch_runs_the_next_one_fills(valkey: Valkey, app: Celery) -> None:
    """All messages that arrive meanwhile form one batch."""
    valkey.client.set("slow_s", 1)
    gather(app, "first")
    until(lambda: valkey.words("tries") == ["first"])
    gather(app, *words_of(20))
    until(lambda: len(valkey.words("gathered")) == 21)

    assert valkey.words("batches_done") == ["1", "20"]
    until(valkey.is_empty)


def test_a_full_buffer_starts_a_second_batch_but_no_third(valkey: Valkey, app: Celery) -> None:
    """At most `batches_max` run at once, each of at most `batch_size_max` messages."""
    valkey.client.set("slow_s", 1)
    gather(app, *words_of(200))
    until(lambda: len(valkey.words("gathered")) == 200)

    assert sorted(valkey.words("gathered")) == sorted(words_of(200))
    assert max(map(int, valkey.words("batches_at_once"))) == 2
    assert max(map(int, valkey.words("batches_done"))) == 50
    until(valkey.is_empty)


def test_in_an_outage_messages_are_kept_and_not_acknowledged(valkey: Valkey, app: Celery) -> None:
    """The same batch is retried until it succeeds, and each message counts once."""
    valkey.client.set("outage", 1)
    gather(app, *words_of(300))
    until(lambda: len(valkey.words("tries")) >= 5)

    # Two batches, one of a single message, and a buffer; the prefetch of 152 stops the intake.
    until(lambda: valkey.ready() == 148)
    assert len(set(valkey.words("tries"))) == 2
    valkey.client.delete("outage")
    until(lambda: len(valkey.words("gathered")) == 300)
    assert sorted(valkey.words("gathered")) == sorted(words_of(300))
    until(valkey.is_empty)


def test_a_message_that_failed_finally_fails_alone(valkey: Valkey, app: Celery) -> None:
    """Its errback is called, it is acknowledged, and the others succeed."""
    valkey.client.set("slow_s", 0.5)
    told = app.signature("tell", ("failed",), immutable=True)
    gather(app, "first", "good")
    gather(app, "bad", link_error=told)
    gather(app, "better", link=app.signature("tell"))

    until(lambda: sorted(valkey.words("told")) == ["better", "failed"])
    until(valkey.is_empty)


def test_revoked_and_expired_messages_do_not_run(valkey: Valkey, app: Celery) -> None:
    """A message is checked again when its batch starts."""
    app.control.revoke("revoked early")
    valkey.client.set("slow_s", 1.5)
    gather(app, "first")
    until(lambda: valkey.words("tries") == ["first"])
    gather(app, "no", expires=datetime.now(UTC) - timedelta(seconds=1))
    gather(app, "no", task_id="revoked early")
    gather(app, "no", task_id="revoked late")
    gather(app, "yes")
    until(lambda: valkey.ready() == 0)
    app.control.revoke("revoked late")

    until(lambda: valkey.words("gathered") == ["first", "yes"])
    until(valkey.is_empty)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"body": b"\xff not json"}, id="no json"),
        pytest.param({"body": b"[]"}, id="no parts"),
        pytest.param({"body": b"[1, {}, {}]"}, id="args no list"),
        pytest.param({"body": b'[["w"], {}, [1]]'}, id="callbacks no mapping"),
        pytest.param({"body": b'[["w"], {}, {}]', "eta": "2099-01-01T00:00:00Z"}, id="eta"),
        pytest.param({"body": b'[["w"], {}, {}]', "expires": "soon"}, id="expires"),
    ],
)
def test_an_unreadable_message_is_diverted_then_acknowledged(
    valkey: Valkey, app: Celery, worker: Worker, arguments: dict[str, Any]
) -> None:
    """The hook runs until it succeeds, and good messages run meanwhile."""
    valkey.client.set("outage", 1)
    publish_raw(app, **arguments)
    until(valkey.is_empty)
    assert valkey.words("undecodable") == []

    valkey.client.delete("outage")
    gather(app, "good")
    until(lambda: len(valkey.words("undecodable")) == 1)
    until(lambda: valkey.words("gathered") == ["good"])
    until(valkey.is_empty)
    assert worker.is_alive()


def test_events_show_every_message(valkey: Valkey, app: Celery) -> None:
    """Flower sees each of them received, started and succeeded or failed."""
    seen: list[dict[str, Any]] = []
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        stream = receiver.itercapture(limit=None, timeout=10, wakeup=False)
        next(stream)
        good, bad = gather(app, "good", "bad")
        until(
            lambda: next(stream, None) or (_types(seen, bad.id)[2:] and _types(seen, good.id)[2:])
        )

    assert _types(seen, good.id) == ["task-received", "task-started", "task-succeeded"]
    assert _types(seen, bad.id) == ["task-received", "task-started", "task-failed"]


def test_a_warm_shutdown_runs_the_buffer(pool: str, tmp_path: Path) -> None:
    """The messages are acknowledged, and none is delivered again."""
    with own_worker(pool, tmp_path) as (worker, valkey, app):
        valkey.client.set("slow_s", 1)
        gather(app, "first")
        until(lambda: valkey.words("tries") == ["first"])
        gather(app, *words_of(10))
        until(valkey.is_empty)
        worker.send(signal.SIGTERM)
        worker.wait()

        assert sorted(valkey.words("gathered")) == sorted(["first", *words_of(10)])
        assert valkey.is_empty()


def test_a_shutdown_in_an_outage_leaves_everything_to_the_broker(pool: str, tmp_path: Path) -> None:
    """The messages return to the queue, and the worker does not wait for the end of the outage."""
    with own_worker(pool, tmp_path) as (worker, valkey, app):
        valkey.client.set("outage", 1)
        gather(app, "first", *words_of(10))
        until(lambda: len(valkey.words("tries")) >= 3 and valkey.is_empty())
        worker.send(signal.SIGTERM)
        worker.wait()

        assert valkey.words("gathered") == []
        assert valkey.ready() == 11


def test_a_lost_connection_drops_the_buffer_for_redelivery(pool: str, tmp_path: Path) -> None:
    """A waiting message is delivered again and runs once."""
    with own_worker(pool, tmp_path) as (worker, valkey, app):
        valkey.client.set("slow_s", 2)
        gather(app, "first")
        until(lambda: valkey.words("tries") == ["first"])
        gather(app, "waits")
        until(valkey.is_empty)
        valkey.client.client_kill_filter(_type="normal", skipme=True)
        until(lambda: "Connection to broker lost" in worker.output())
        valkey.client.delete("slow_s")
        gather(app, "new")

        until(lambda: set(valkey.words("gathered")) == {"first", "waits", "new"})
        until(valkey.is_empty)
        assert valkey.words("gathered").count("waits") == 1


def publish_raw(
    app: Celery, body: bytes, content_type: str = "application/json", **headers: Any
) -> None:
    """Publish bytes as a message of the batch task."""
    with app.connection() as connection, connection.Producer() as producer:
        producer.publish(
            body,
            routing_key="test",
            content_type=content_type,
            content_encoding="utf-8",
            headers={"task": "gather", "id": "raw", "lang": "py", **headers},
        )


@contextmanager
def own_worker(pool: str, folder: Path) -> Iterator[tuple[Worker, Valkey, Celery]]:
    """A worker on its own Valkey, for a test that ends it."""
    valkey = Valkey(folder)
    valkey.start()
    try:
        with a_worker(
            valkey, folder / "worker", worker_pool=pool, worker_prefetch_multiplier=38
        ) as worker:
            yield worker, valkey, client_of(valkey)
    finally:
        valkey.kill()


def _types(events: list[dict[str, Any]], task_id: str) -> list[str]:
    return [event["type"] for event in events if event.get("uuid") == task_id]
