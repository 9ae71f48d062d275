"""How a real worker process with the asyncio pool starts, stops and is killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from celery import Celery

from tests.support.celery_worker import Note, a_worker, client_of
from tests.support.valkey import Valkey, until

pytestmark = pytest.mark.long


def test_hundreds_of_tasks_run_on_few_threads(valkey: Valkey, tmp_path: Path, note: Note) -> None:
    with a_worker(valkey, tmp_path, worker_concurrency=400) as worker:
        for number in range(400):
            note(str(number), 3)
        until(lambda: max(map(int, valkey.words("running")), default=0) == 400)

        assert worker.threads() < 20
        until(lambda: len(valkey.words("ended")) == 400)
        until(valkey.is_empty)


def test_a_warm_shutdown_lets_tasks_finish(valkey: Valkey, tmp_path: Path, note: Note) -> None:
    """The intake stops, running tasks end and are acknowledged, resources are exited last."""
    with a_worker(valkey, tmp_path) as worker:
        note("a", 2)
        until(lambda: valkey.words("started") == ["a"])
        worker.send(signal.SIGTERM)
        exit_code = worker.wait()

    assert exit_code == 0
    assert valkey.words("ended") == ["a"]
    assert valkey.words("resource") == ["entered", "left after 1 ended"]
    assert valkey.is_empty()


def test_a_drain_acknowledges_as_tasks_end_and_keeps_no_new_message(
    valkey: Valkey, tmp_path: Path, note: Note
) -> None:
    """A message that the worker's last pop takes returns at once, not after the drain."""
    with a_worker(valkey, tmp_path, "-l", "INFO") as worker:
        note("long", 15)
        note("short", 3)
        until(lambda: len(valkey.words("started")) == 2)
        worker.send(signal.SIGTERM)
        until(lambda: worker.has_logged("drain.started", "coroutines=2"))
        note("new")

        # One second is how long the pop that was under way may still take a message.
        until(lambda: valkey.words("ended") == ["short"])
        until(lambda: valkey.ready() == 1, 5)
        assert worker.is_alive()
        assert valkey.words("ended") == ["short"]


def test_the_drain_ends_and_unfinished_messages_return(
    valkey: Valkey, tmp_path: Path, note: Note
) -> None:
    """After `callgate_drain_s` a task is cancelled and its message returns to the queue."""
    with a_worker(valkey, tmp_path, callgate_drain_s=1) as worker:
        note("a", 60)
        until(lambda: valkey.words("started") == ["a"])
        begun = time.monotonic()
        worker.send(signal.SIGTERM)
        worker.wait()

    assert 1 <= time.monotonic() - begun < 8
    assert valkey.words("cancelled") == ["a"]
    assert valkey.ready() == 1


def test_the_drain_ends_although_a_task_does_not(
    valkey: Valkey, tmp_path: Path, app: Celery
) -> None:
    """Neither a coroutine that ignores its cancellation nor a blocked thread keeps the process alive."""
    with a_worker(valkey, tmp_path, callgate_drain_s=0.5) as worker:
        app.send_task("stubborn", (60,))
        app.send_task("block", ("thread", 60))
        until(lambda: valkey.is_empty() and valkey.words("started") == ["thread"])
        worker.send(signal.SIGTERM)
        worker.wait()

        assert worker.has_logged("drain.abandoned", "coroutines=1", "threads=1")
    assert valkey.ready() == 2


def test_the_drain_ends_without_the_broker(tmp_path: Path) -> None:
    """Nothing can be acknowledged, and the worker still stops in time."""
    valkey = Valkey(tmp_path)
    valkey.start()
    try:
        with a_worker(valkey, tmp_path / "worker", "-l", "INFO", callgate_drain_s=2) as worker:
            client_of(valkey).send_task("note", ("a", 60))
            until(lambda: valkey.words("started") == ["a"])
            worker.send(signal.SIGTERM)
            until(lambda: worker.has_logged("drain.started", "coroutines=1"))
            valkey.kill()

            worker.wait()
            assert worker.output().count("drain.broker_lost") <= 2
    finally:
        valkey.kill()


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param((signal.SIGQUIT,), id="cold"),
        pytest.param((signal.SIGTERM, signal.SIGTERM), id="twice"),
        pytest.param((signal.SIGTERM, signal.SIGQUIT), id="warm then cold"),
    ],
)
def test_a_second_signal_cancels_at_once(
    valkey: Valkey, tmp_path: Path, note: Note, signals: tuple[signal.Signals, ...]
) -> None:
    """Only finished tasks are acknowledged."""
    with a_worker(valkey, tmp_path) as worker:
        note("a", 60)
        until(lambda: valkey.words("started") == ["a"])
        for number in signals:
            lines = worker.output().count("shutdown (MainProcess)")
            worker.send(number)
            until(lambda: worker.output().count("shutdown (MainProcess)") > lines)  # noqa: B023
        worker.wait(10)

        assert "Unrecoverable" not in worker.output()
    assert valkey.words("cancelled") == ["a"]
    assert valkey.words("resource")[-1].startswith("left")
    assert valkey.ready() == 1


def test_a_worker_survives_a_lost_connection(valkey: Valkey, tmp_path: Path, note: Note) -> None:
    """Running tasks continue, waiting ones are delivered again, and no message is left over."""
    with a_worker(valkey, tmp_path, worker_concurrency=1, worker_prefetch_multiplier=3) as worker:
        note("runs", 3)
        until(lambda: valkey.words("started") == ["runs"])
        note("waits")
        until(valkey.is_empty)
        valkey.client.client_kill_filter(_type="normal", skipme=True)
        until(lambda: "Connection to broker lost" in worker.output())
        note("new")

        until(lambda: set(valkey.words("ended")) == {"runs", "waits", "new"})
        until(valkey.is_empty)
        assert valkey.words("ended").count("waits") == 1
        assert worker.is_alive()


def test_a_worker_survives_the_broker(tmp_path: Path) -> None:
    """A task that started before the broker was killed is acknowledged to the next one."""
    valkey = Valkey(tmp_path)
    valkey.start()
    try:
        with a_worker(valkey, tmp_path / "worker") as worker:
            app = client_of(valkey)
            app.send_task("note", ("old", 5))
            until(lambda: valkey.words("started") == ["old"])
            valkey.kill()
            until(lambda: "Connection to broker lost" in worker.output())
            valkey.start()
            app.send_task("note", ("new",))

            until(lambda: valkey.words("ended") == ["new", "old"], 40)
            until(valkey.is_empty)
            assert worker.is_alive()
    finally:
        valkey.kill()


def test_a_resource_that_does_not_start_ends_the_worker(valkey: Valkey, tmp_path: Path) -> None:
    """The worker logs which one and why, and accepts no task."""
    with a_worker(valkey, tmp_path, is_ready=False, break_service=True) as worker:
        exit_code = worker.wait(40)

        assert "resource broken_resource did not start: ConnectionRefusedError" in worker.output()
    assert exit_code != 0
    assert valkey.words("resource") == ["entered", "left after 0 ended"]


def test_a_dead_loop_ends_the_worker(valkey: Valkey, tmp_path: Path, app: Celery) -> None:
    """A worker without its loop would only collect messages."""
    with a_worker(valkey, tmp_path) as worker:
        app.send_task("kill_loop")

        assert worker.wait() != 0
    assert valkey.ready() == 1
