"""The Celery app of the worker tests: its tasks note in Valkey what happens to them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery, signals
from redis import Redis

from callgate.domain.reports import UnprocessableMessage
from worker.celery_ext.batches import BatchMessage, BatchTask
from worker.celery_ext.body_result import BodyResult
from worker.celery_ext.consumer import connect_unprocessable_sink
from worker.celery_ext.pool import AsyncTask, run_on_loop

app = Celery("test")
# The test that starts the worker writes this module.
app.config_from_object("worker_conf")


def valkey() -> Redis:
    """Return a client; each thread has its own, so that none waits for another."""
    if not hasattr(_local, "client"):
        _local.client = Redis.from_url(app.conf.broker_url, decode_responses=True)
    client: Redis = _local.client
    return client


_local = threading.local()


class Note(AsyncTask):
    """Notes its start, sleeps, notes its end; also how many run at once."""

    name = "note"
    running = 0

    def check(self, word: str, sleep_s: float = 0) -> None:
        """Take words only."""
        if not isinstance(word, str):
            raise TypeError("no word")

    async def arun(self, request: Mapping[str, Any], word: str, sleep_s: float = 0) -> str:
        """Return the word."""
        Note.running += 1
        valkey().rpush("started", word)
        valkey().rpush("running", Note.running)
        try:
            await asyncio.sleep(sleep_s)
        except asyncio.CancelledError:
            valkey().rpush("cancelled", word)
            raise
        finally:
            Note.running -= 1
        valkey().rpush("ended", word)
        return word


class Fail(AsyncTask):
    """Ends with an error, or with something worse."""

    name = "fail"

    async def arun(self, request: Mapping[str, Any], how: str) -> None:
        """Raise what was asked for."""
        if how == "exit":
            sys.exit(3)
        if how == "cancelled":
            raise asyncio.CancelledError
        raise ValueError(how)


class Stubborn(AsyncTask):
    """Suppresses its cancellation."""

    name = "stubborn"

    async def arun(self, request: Mapping[str, Any], sleep_s: float) -> None:
        """Sleep to the end."""
        deadline = time.monotonic() + sleep_s
        while time.monotonic() < deadline:
            try:
                await asyncio.sleep(sleep_s)
            except asyncio.CancelledError:
                valkey().rpush("cancelled", "stubborn")


class KillLoop(AsyncTask):
    """Ends the event loop of the pool."""

    name = "kill_loop"

    async def arun(self, request: Mapping[str, Any]) -> None:
        """Raise where nobody can catch it."""
        asyncio.get_running_loop().call_soon(sys.exit)
        await asyncio.sleep(60)


class Gather(BatchTask):
    """Notes the sizes of its batches; fails while there is an outage."""

    name = "gather"
    batch_size_max = 50
    batch_wait_s = 5.0

    def run_batch(self, messages: Sequence[BatchMessage]) -> Sequence[BodyResult]:
        """Take as long as the key `slow_s` says; the word `bad` fails for good."""
        client = valkey()
        client.rpush("tries", " ".join(message.args[0] for message in messages))
        client.rpush("batches_at_once", client.incr("batches"))
        try:
            time.sleep(float(client.get("slow_s") or 0))
            if client.get("outage"):
                raise ConnectionError("the database is away")
        finally:
            client.decr("batches")
        client.rpush("batches_done", len(messages))
        client.rpush("gathered", *(message.args[0] for message in messages))
        return [_gathered(message) for message in messages]

    def run_undecodable(self, message: Any, error: Exception) -> None:
        """Note it, but only when there is no outage."""
        if valkey().get("outage"):
            raise ConnectionError("the database is away")
        valkey().rpush("undecodable", repr(error))


def _gathered(message: BatchMessage) -> BodyResult:
    if message.args[0] == "bad":
        return BodyResult(error=ValueError("bad"))
    return BodyResult(message.args[0])


for task in (Note, Fail, Stubborn, KillLoop, Gather):
    app.register_task(task())


@app.task(name="block")  # type: ignore[misc]
def block(word: str, sleep_s: float) -> None:
    """Sleep in a thread."""
    valkey().rpush("started", word)
    time.sleep(sleep_s)
    valkey().rpush("ended", word)


@app.task(name="tell", ignore_result=True)  # type: ignore[misc]
def tell(result: object, key: str = "told") -> None:
    """Note the result of another task."""
    valkey().rpush(key, str(result))


@asynccontextmanager
async def resource() -> AsyncIterator[None]:
    """Note when it is entered and exited."""
    valkey().rpush("resource", "entered")
    try:
        yield
    finally:
        valkey().rpush("resource", f"left after {valkey().llen('ended')} ended")


@asynccontextmanager
async def broken_resource() -> AsyncIterator[None]:
    """Fail to start, if the configuration says so."""
    if app.conf.get("break_service"):
        raise ConnectionRefusedError("the database is away")
    yield


run_on_loop(app, resource)
run_on_loop(app, broken_resource)


def note_signal(name: str) -> Any:
    """Make a receiver that notes a signal, its task and the moment."""

    def receive(sender: Any, task_id: str = "", **_: Any) -> None:
        valkey().rpush(
            "signals", f"{name} {sender.name} {task_id or sender.request.id} {time.time()}"
        )

    return receive


if app.conf.get("note_signals"):
    for name in ("task_prerun", "task_success", "task_failure", "task_postrun"):
        getattr(signals, name).connect(note_signal(name), weak=False)


def keep_unprocessable(message: UnprocessableMessage) -> None:
    """Note an unprocessable message, unless there is an outage."""
    valkey().rpush("sink_tries", message.reason)
    if valkey().get("outage"):
        raise ConnectionError("the database is away")
    valkey().rpush(
        "unprocessable_messages",
        f"{message.queue}|{message.reason}|{message.raw.decode(errors='replace')}",
    )


if app.conf.get("store_unprocessable"):
    connect_unprocessable_sink(app, keep_unprocessable)
