"""How tasks run in the asyncio pool of a real worker process on a real Valkey."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from tests.support.celery_worker import Note, Worker, a_worker
from tests.support.valkey import Valkey, until

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def worker(server: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker with four slots and a prefetch of eight, for tests that do not end it."""
    server.client.flushall()
    with a_worker(
        server,
        tmp_path_factory.mktemp("worker"),
        "-E",
        worker_prefetch_multiplier=2,
        note_signals=True,
    ) as worker:
        yield worker


def test_a_coroutine_runs_and_its_message_is_acknowledged(
    worker: Worker, valkey: Valkey, note: Note
) -> None:
    """A task that ended leaves nothing on the broker."""
    note("a")

    until(lambda: valkey.words("ended") == ["a"])
    until(valkey.is_empty)


def test_full_slots_never_wait_for_the_hub(worker: Worker, valkey: Valkey, note: Note) -> None:
    """A slot is free when its task ends, not when the hub's next poll times out."""
    begun = time.monotonic()
    for number in range(200):
        note(str(number))
    until(lambda: len(valkey.words("ended")) == 200, 60)

    # Two hundred tasks with eight credits: each stall would cost up to a second.
    assert time.monotonic() - begun < 8


def test_no_more_coroutines_run_than_the_concurrency(
    worker: Worker, valkey: Valkey, note: Note
) -> None:
    """The prefetch may be larger; the other tasks wait in the process."""
    for number in range(8):
        note(str(number), 1)
    until(valkey.is_empty)
    until(lambda: len(valkey.words("ended")) == 8)

    assert max(map(int, valkey.words("running"))) == 4


def test_two_deliveries_of_one_task_id_keep_their_own_results(
    worker: Worker, valkey: Valkey, app: Celery, note: Note
) -> None:
    """A result belongs to a delivery, not to a task id."""
    for word in ("long", "short"):
        note(word, 0.6 if word == "long" else 0.3, task_id="same", link=app.signature("tell"))

    until(lambda: len(valkey.words("told")) == 2)
    assert sorted(valkey.words("told")) == ["long", "short"]
    until(valkey.is_empty)


@pytest.mark.parametrize("how", ["error", "exit", "cancelled"])
def test_a_failing_coroutine_calls_its_errback_and_is_acknowledged(
    worker: Worker, valkey: Valkey, app: Celery, how: str
) -> None:
    """Any error of a coroutine fails its task and nothing else."""
    app.send_task("fail", (how,), link_error=app.signature("tell", ("failed",), immutable=True))

    until(lambda: valkey.words("told") == ["failed"])
    until(valkey.is_empty)
    assert worker.is_alive()


def test_a_chain_goes_on_after_a_coroutine(worker: Worker, valkey: Valkey, app: Celery) -> None:
    """Celery's tracer publishes the next step with the coroutine's result."""
    (app.signature("note", ("first",)) | app.signature("tell")).apply_async()

    until(lambda: valkey.words("told") == ["first"])


def test_functions_run_beside_coroutines(
    worker: Worker, valkey: Valkey, app: Celery, note: Note
) -> None:
    """A function that blocks its thread does not block the loop."""
    app.send_task("block", ("function", 1.5))
    until(lambda: valkey.words("started") == ["function"])
    note("coroutine")

    until(lambda: valkey.words("ended") == ["coroutine", "function"])
    until(valkey.is_empty)


def test_a_soft_time_limit_fails_the_task(
    worker: Worker, valkey: Valkey, app: Celery, note: Note
) -> None:
    """The coroutine is cancelled and the task has failed with `SoftTimeLimitExceeded`."""
    errback = app.signature("tell", ("failed",), immutable=True)
    note("a", 60, soft_time_limit=0.3, link_error=errback)

    until(lambda: valkey.words("told") == ["failed"])
    until(valkey.is_empty)
    assert valkey.words("cancelled") == ["a"]
    until(lambda: "SoftTimeLimitExceeded(0.3" in worker.output())


def test_a_hard_time_limit_works_without_the_coroutine(
    worker: Worker, valkey: Valkey, app: Celery
) -> None:
    """Celery fails and acknowledges the task although its coroutine continues."""
    errback = app.signature("tell", ("failed",), immutable=True)
    app.send_task("stubborn", (2,), time_limit=0.3, link_error=errback)

    until(lambda: valkey.words("told") == ["failed"])
    until(valkey.is_empty)
    until(lambda: valkey.words("cancelled") == ["stubborn"])
    until(lambda: "Hard time limit (0.3s) exceeded for stubborn" in worker.output())


def test_revoking_with_terminate_cancels_the_coroutine(
    worker: Worker, valkey: Valkey, app: Celery, note: Note
) -> None:
    """The revoked task ends at once and is acknowledged; the other task continues."""
    revoked, _ = note("revoked", 60), note("neighbour", 1.5)
    until(lambda: sorted(valkey.words("started")) == ["neighbour", "revoked"])
    app.control.revoke(revoked.id, terminate=True)

    until(lambda: valkey.words("cancelled") == ["revoked"])
    until(lambda: valkey.words("ended") == ["neighbour"])
    until(valkey.is_empty)


def test_a_task_revoked_while_it_waits_for_a_slot_never_runs(
    worker: Worker, valkey: Valkey, app: Celery, note: Note
) -> None:
    """When a slot is free, it is acknowledged instead of run."""
    for number in range(4):
        note(str(number), 2)
    until(lambda: len(valkey.words("started")) == 4)
    revoked = note("revoked")
    until(valkey.is_empty)
    app.control.revoke(revoked.id, terminate=True)

    until(lambda: len(valkey.words("ended")) == 4)
    until(valkey.is_empty)
    assert "revoked" not in valkey.words("started")


def test_events_have_the_runtime_of_the_coroutine(
    worker: Worker, valkey: Valkey, app: Celery, note: Note
) -> None:
    """Flower sees received, started and succeeded."""
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


@pytest.mark.parametrize("link", [None, "tell"], ids=["on the loop", "in a thread"])
def test_signals_fire_around_the_body(
    worker: Worker, valkey: Valkey, app: Celery, note: Note, link: str | None
) -> None:
    """A span lasts as long as the call, and concurrent calls have concurrent spans; batch tasks too."""
    options = {} if link is None else {"link": app.signature(link)}
    valkey.client.set("slow_s", 0.5)
    tasks = [note(word, 0.5, **options).id for word in ("a", "b")]
    tasks += [app.send_task("gather", (word,)).id for word in ("c", "d")]
    failed = app.send_task("fail", ("error",), **options).id
    until(
        lambda: {
            told
            for name, _, told, _ in map(str.split, valkey.words("signals"))
            if name == "task_postrun"
        }.issuperset([*tasks, failed])
    )

    seen = [line.split() for line in valkey.words("signals")]
    for task_id in tasks:
        mine = [(name, float(at)) for name, _, told, at in seen if told == task_id]
        assert [name for name, _ in mine] == ["task_prerun", "task_success", "task_postrun"]
        assert mine[-1][1] - mine[0][1] >= 0.5
    names = [name for name, _, told, _ in seen if told == failed]
    assert names == ["task_prerun", "task_failure", "task_postrun"]
    notes = [name for name, task, _, _ in seen if task == "note"]
    assert notes[:2] == ["task_prerun"] * 2, "the two did not run at once"


def test_the_pool_grows_and_shrinks(
    worker: Worker, valkey: Valkey, app: Celery, note: Note
) -> None:
    """Remote control changes how many coroutines may run at once."""
    app.control.pool_grow(2, reply=True, timeout=5)
    for number in range(6):
        note(str(number), 1.5)
    until(lambda: len(valkey.words("ended")) == 6)
    assert max(map(int, valkey.words("running"))) == 6

    app.control.pool_shrink(2, reply=True, timeout=5)
    valkey.client.delete("running", "ended")
    for number in range(6):
        note(str(number), 0.5)
    until(lambda: len(valkey.words("ended")) == 6)
    assert max(map(int, valkey.words("running"))) == 4


def _ends(events: list[dict[str, Any]], task_id: str) -> bool:
    ends = ("task-succeeded", "task-failed")
    return any(event["type"] in ends and event.get("uuid") == task_id for event in events)
