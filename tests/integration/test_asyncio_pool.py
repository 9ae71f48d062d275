"""The asyncio pool in real worker processes on a real Valkey."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.integration._celery_worker import Worker, a_worker, client_of
from tests.integration._valkey import Valkey, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One Valkey for all tests of this module."""
    valkey = Valkey(tmp_path_factory.mktemp("valkey"))
    valkey.start()
    yield valkey
    valkey.kill()


@pytest.fixture(scope="module")
def worker(server: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker, four slots and a prefetch of eight, for the tests that leave it alive."""
    server.client.flushall()
    with a_worker(
        server, tmp_path_factory.mktemp("worker"), "-E", worker_prefetch_multiplier=2
    ) as worker:
        yield worker


@pytest.fixture
def valkey(server: Valkey) -> Valkey:
    """The server, with nothing in it."""
    server.client.flushall()
    return server


@pytest.fixture
def app(valkey: Valkey) -> Celery:
    """An app that publishes to the worker."""
    return client_of(valkey)


Task = Callable[..., Any]


@pytest.fixture
def note(app: Celery) -> Task:
    """Publishes the task that notes its start and its end."""

    def publish(word: str, sleep_s: float = 0, **options: Any) -> Any:
        return app.send_task("note", (word, sleep_s), **options)

    return publish


def test_a_coroutine_runs_and_its_message_is_acknowledged(
    worker: Worker, valkey: Valkey, note: Task
) -> None:
    """A task that ended leaves nothing on the broker."""
    note("a")

    until(lambda: valkey.words("ended") == ["a"])
    until(valkey.is_empty)


def test_full_slots_never_wait_for_the_hub(worker: Worker, valkey: Valkey, note: Task) -> None:
    """A slot is free again when its task ends, not when the hub's next poll times out."""
    begun = time.monotonic()
    for number in range(40):
        note(str(number))
    until(lambda: len(valkey.words("ended")) == 40)

    # Forty tasks in eight credits; each stall would cost a second.
    assert time.monotonic() - begun < 4


def test_no_more_coroutines_run_than_the_concurrency(
    worker: Worker, valkey: Valkey, note: Task
) -> None:
    """The prefetch may be larger; the rest waits in the process."""
    for number in range(8):
        note(str(number), 0.3)
    until(lambda: valkey.unacked() == 8)
    until(lambda: len(valkey.words("ended")) == 8)

    assert max(map(int, valkey.words("running"))) == 4


def test_two_deliveries_of_one_task_id_keep_their_own_outcomes(
    worker: Worker, valkey: Valkey, app: Celery, note: Task
) -> None:
    """An outcome belongs to a delivery, not to a task id."""
    for word in ("long", "short"):
        note(word, 0.6 if word == "long" else 0.3, task_id="same", link=app.signature("tell"))

    until(lambda: len(valkey.words("told")) == 2)
    assert sorted(valkey.words("told")) == ["long", "short"]
    until(valkey.is_empty)


@pytest.mark.parametrize("how", ["error", "exit", "cancelled"])
def test_a_failing_coroutine_calls_its_errback_and_is_acknowledged(
    worker: Worker, valkey: Valkey, app: Celery, how: str
) -> None:
    """Whatever a coroutine raises fails its task and nothing else."""
    app.send_task("fail", (how,), link_error=app.signature("tell", ("failed",), immutable=True))

    until(lambda: valkey.words("told") == ["failed"])
    until(valkey.is_empty)
    assert worker.process.poll() is None


def test_a_chain_goes_on_after_a_coroutine(
    worker: Worker, valkey: Valkey, app: Celery
) -> None:
    """Celery's tracer publishes the next step with the coroutine's result."""
    (app.signature("note", ("first",)) | app.signature("tell")).apply_async()

    until(lambda: valkey.words("told") == ["first"])


def test_functions_run_beside_coroutines(
    worker: Worker, valkey: Valkey, app: Celery, note: Task
) -> None:
    """A function that blocks its thread does not hold up the loop."""
    app.send_task("block", ("function", 1.5))
    until(lambda: valkey.words("started") == ["function"])
    note("coroutine")

    until(lambda: valkey.words("ended") == ["coroutine", "function"])
    until(valkey.is_empty)


def test_a_soft_time_limit_fails_the_task(
    worker: Worker, valkey: Valkey, app: Celery, note: Task
) -> None:
    """The coroutine is cancelled and the task has failed with `SoftTimeLimitExceeded`."""
    errback = app.signature("tell", ("failed",), immutable=True)
    note("a", 60, soft_time_limit=0.3, link_error=errback)

    until(lambda: valkey.words("told") == ["failed"])
    until(valkey.is_empty)
    assert valkey.words("cancelled") == ["a"]
    assert "SoftTimeLimitExceeded(0.3" in worker.log()


def test_a_hard_time_limit_needs_no_consent(worker: Worker, valkey: Valkey, app: Celery) -> None:
    """Celery fails and acknowledges the task though its coroutine goes on."""
    errback = app.signature("tell", ("failed",), immutable=True)
    app.send_task("stubborn", (2,), time_limit=0.3, link_error=errback)

    until(lambda: valkey.words("told") == ["failed"])
    until(valkey.is_empty)
    until(lambda: valkey.words("cancelled") == ["stubborn"])
    assert "Hard time limit (0.3s) exceeded for stubborn" in worker.log()


def test_revoking_with_terminate_cancels_the_coroutine(
    worker: Worker, valkey: Valkey, app: Celery, note: Task
) -> None:
    """The revoked task ends at once and is acknowledged; its neighbour goes on."""
    revoked, _ = note("revoked", 60), note("neighbour", 1.5)
    until(lambda: sorted(valkey.words("started")) == ["neighbour", "revoked"])
    app.control.revoke(revoked.id, terminate=True)

    until(lambda: valkey.words("cancelled") == ["revoked"])
    until(lambda: valkey.words("ended") == ["neighbour"])
    until(valkey.is_empty)


def test_a_task_revoked_while_it_waits_for_a_slot_never_runs(
    worker: Worker, valkey: Valkey, app: Celery, note: Task
) -> None:
    """Its turn comes, and it is acknowledged instead of run."""
    for number in range(4):
        note(str(number), 2)
    until(lambda: len(valkey.words("started")) == 4)
    revoked = note("revoked")
    until(lambda: valkey.unacked() == 5)
    app.control.revoke(revoked.id, terminate=True)

    until(lambda: len(valkey.words("ended")) == 4)
    until(valkey.is_empty)
    assert "revoked" not in valkey.words("started")


def test_events_tell_how_long_the_coroutine_took(
    worker: Worker, valkey: Valkey, app: Celery, note: Task
) -> None:
    """Flower sees received, started and succeeded, with the body's own run time."""
    seen: list[dict[str, Any]] = []
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        stream = receiver.itercapture(limit=None, timeout=10, wakeup=False)
        next(stream)
        task = note("a", 0.4)
        until(lambda: next(stream, None) or _ends(seen, task.id))
    mine = [event for event in seen if event.get("uuid") == task.id]

    assert [event["type"] for event in mine] == ["task-received", "task-started", "task-succeeded"]
    assert 0.4 <= mine[-1]["runtime"] < 2


def test_the_pool_grows_and_shrinks(
    worker: Worker, valkey: Valkey, app: Celery, note: Task
) -> None:
    """Remote control changes how many coroutines may run at once."""
    app.control.pool_grow(2, reply=True, timeout=5)
    for number in range(6):
        note(str(number), 0.5)
    until(lambda: len(valkey.words("ended")) == 6)
    assert max(map(int, valkey.words("running"))) == 6

    app.control.pool_shrink(2, reply=True, timeout=5)
    valkey.client.delete("running", "ended")
    for number in range(6):
        note(str(number), 0.5)
    until(lambda: len(valkey.words("ended")) == 6)
    assert max(map(int, valkey.words("running"))) == 4


def test_hundreds_are_in_flight_on_a_handful_of_threads(
    valkey: Valkey, tmp_path: Path, note: Task
) -> None:
    """What waits costs no thread."""
    with a_worker(valkey, tmp_path, worker_concurrency=400) as worker:
        for number in range(400):
            note(str(number), 5)
        until(lambda: max(map(int, valkey.words("running")), default=0) == 400)

        assert worker.threads() < 20
        until(lambda: len(valkey.words("ended")) == 400)
        until(valkey.is_empty)


def test_a_warm_shutdown_lets_tasks_finish(valkey: Valkey, tmp_path: Path, note: Task) -> None:
    """Intake stops, what runs ends and is acknowledged, services are left last."""
    with a_worker(valkey, tmp_path) as worker:
        note("a", 2)
        until(lambda: valkey.words("started") == ["a"])
        worker.signal(signal.SIGTERM)
        exit_code = worker.exit_code()

    assert exit_code == 0
    assert valkey.words("ended") == ["a"]
    assert valkey.words("service") == ["entered", "left after 1 ended"]
    assert valkey.is_empty()


def test_a_drain_acknowledges_as_tasks_end_and_keeps_no_new_message(
    valkey: Valkey, tmp_path: Path, note: Task
) -> None:
    """What the worker's last pop takes goes back at once, not after the drain."""
    with a_worker(valkey, tmp_path, "-l", "INFO") as worker:
        note("long", 15)
        note("short", 3)
        until(lambda: len(valkey.words("started")) == 2)
        worker.signal(signal.SIGTERM)
        until(lambda: "draining 2 coroutines" in worker.log())
        note("new")

        # One second is how long the pop that was under way may still take a message.
        until(lambda: valkey.words("ended") == ["short"])
        until(lambda: valkey.unacked() == 1 and valkey.ready() == 1, 5)
        assert worker.process.poll() is None
        assert valkey.words("ended") == ["short"]


def test_the_drain_ends_and_what_is_cut_off_goes_back(
    valkey: Valkey, tmp_path: Path, note: Task
) -> None:
    """Past `callgate_drain_s` a task is cancelled and its message returns to the queue."""
    with a_worker(valkey, tmp_path, callgate_drain_s=1) as worker:
        note("a", 60)
        until(lambda: valkey.words("started") == ["a"])
        begun = time.monotonic()
        worker.signal(signal.SIGTERM)
        worker.exit_code()

    assert 1 <= time.monotonic() - begun < 8
    assert valkey.words("cancelled") == ["a"]
    assert (valkey.ready(), valkey.unacked()) == (1, 0)


def test_the_drain_ends_though_a_task_will_not(
    valkey: Valkey, tmp_path: Path, app: Celery
) -> None:
    """Neither a coroutine that ignores its cancellation nor a blocked thread keeps the process."""
    with a_worker(valkey, tmp_path, callgate_drain_s=0.5) as worker:
        app.send_task("stubborn", (60,))
        app.send_task("block", ("thread", 60))
        until(lambda: valkey.unacked() == 2 and valkey.words("started") == ["thread"])
        worker.signal(signal.SIGTERM)
        worker.exit_code()

        assert "abandoned 1 coroutines and 1 threads" in worker.log()
    assert (valkey.ready(), valkey.unacked()) == (2, 0)


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param((signal.SIGQUIT,), id="cold"),
        pytest.param((signal.SIGTERM, signal.SIGTERM), id="twice"),
        pytest.param((signal.SIGTERM, signal.SIGQUIT), id="warm then cold"),
    ],
)
def test_an_impatient_signal_cancels_at_once(
    valkey: Valkey, tmp_path: Path, note: Task, signals: tuple[signal.Signals, ...]
) -> None:
    """Nothing is acknowledged that did not end."""
    with a_worker(valkey, tmp_path) as worker:
        note("a", 60)
        until(lambda: valkey.words("started") == ["a"])
        for number in signals:
            lines = worker.log().count("shutdown (MainProcess)")
            worker.signal(number)
            until(lambda: worker.log().count("shutdown (MainProcess)") > lines)  # noqa: B023
        worker.exit_code(10)

        assert "Unrecoverable" not in worker.log()
    assert valkey.words("cancelled") == ["a"]
    assert valkey.words("service")[-1].startswith("left")
    assert (valkey.ready(), valkey.unacked()) == (1, 0)


def test_a_killed_worker_loses_no_task(valkey: Valkey, tmp_path: Path, note: Task) -> None:
    """After kill -9 the broker gives the message to the next worker."""
    redeliver = {
        "visibility_timeout": 1,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }
    with a_worker(valkey, tmp_path / "first") as first:
        note("a", 2)
        until(lambda: valkey.words("started") == ["a"])
        first.kill()
    assert valkey.unacked() == 1

    with a_worker(valkey, tmp_path / "second", broker_transport_options=redeliver):
        until(lambda: "a" in valkey.words("ended"))


def test_a_restarted_broker_finds_the_pool_working(tmp_path: Path) -> None:
    """Coroutines outlive the connection, and the worker takes tasks again afterwards."""
    valkey = Valkey(tmp_path)
    valkey.start()
    try:
        with a_worker(valkey, tmp_path / "worker") as worker:
            app = client_of(valkey)
            app.send_task("note", ("old", 4))
            until(lambda: valkey.words("started") == ["old"])
            valkey.kill()
            valkey.start()
            app.send_task("note", ("new",))

            until(lambda: sorted(valkey.words("ended")) == ["new", "old"], 40)
            assert worker.process.poll() is None
    finally:
        valkey.kill()


def test_a_service_that_does_not_start_ends_the_worker(valkey: Valkey, tmp_path: Path) -> None:
    """The worker says which one and why, and takes no task."""
    with a_worker(valkey, tmp_path, is_ready=False, break_service=True) as worker:
        exit_code = worker.exit_code(40)

        assert "service broken_service did not start: ConnectionRefusedError" in worker.log()
    assert exit_code != 0
    assert valkey.words("service") == ["entered", "left after 0 ended"]


def test_a_dead_loop_ends_the_worker(valkey: Valkey, tmp_path: Path, app: Celery) -> None:
    """A worker without its loop would only collect messages."""
    with a_worker(valkey, tmp_path) as worker:
        app.send_task("kill_loop")

        assert worker.exit_code() != 0
    assert (valkey.ready(), valkey.unacked()) == (1, 0)


def _ends(events: list[dict[str, Any]], task_id: str) -> bool:
    ends = ("task-succeeded", "task-failed")
    return any(event["type"] in ends and event.get("uuid") == task_id for event in events)
