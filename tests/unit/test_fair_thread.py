"""FairThread of organisations in one thread."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError, Future, wait

import pytest

import worker.fair_thread
from worker.fair_thread import FairThread


@pytest.fixture
def turns() -> Iterator[FairThread]:
    """FairThread without work."""
    turns = FairThread("test")
    yield turns
    turns.close()


def steps(count: int, log: list[str], name: str, step_s: float = 0.0) -> Generator[None, None, str]:
    """Work of so many steps."""
    for _ in range(count):
        log.append(name)
        threading.Event().wait(step_s)
        yield
    return name


def test_work_ends_with_what_it_returns_or_raises(turns: FairThread) -> None:

    def wrong() -> Generator[None, None, None]:
        yield
        raise ValueError("wrong")

    assert turns.submit("acme", steps(3, [], "x")).result(10) == "x"
    with pytest.raises(ValueError, match="wrong"):
        turns.submit("acme", wrong()).result(10)
    assert turns.submit("acme", steps(0, [], "y")).result(10) == "y"


def test_an_organisation_with_long_steps_has_fewer_turns(turns: FairThread) -> None:
    """A hundred short steps run between two long ones; the order within an organisation stays."""
    log: list[str] = []
    futures = [turns.submit("slow", steps(3, log, "slow", 0.2))]
    futures += [turns.submit("quick", steps(50, log, name)) for name in ("a", "b")]

    for future in futures:
        future.result(30)

    assert log.index("b") - log.index("a") == 50
    assert log[:1] + log[-1:] == ["slow", "slow"]
    assert log[1:101] == ["a"] * 50 + ["b"] * 50


def test_a_pause_earns_no_extra_turns(turns: FairThread) -> None:
    """An organisation that returns is served next, and then has turns like the others."""
    log: list[str] = []
    turns.submit("busy", steps(30, log, "busy", 0.01)).result(30)
    both = [turns.submit(org, steps(20, log, org, 0.02)) for org in ("busy", "late")]

    for future in both:
        future.result(30)

    assert 5 <= log[30:50].count("late") <= 15


def test_cancelled_work_stops(turns: FairThread) -> None:
    """Other work continues."""
    begun, go_on = threading.Event(), threading.Event()

    def waiting() -> Generator[None, None, None]:
        while True:
            begun.set()
            go_on.wait()
            yield

    endless: Future[None] = turns.submit("acme", waiting())
    assert begun.wait(10)
    behind = turns.submit("acme", steps(1, [], "behind"))
    assert endless.cancel()
    go_on.set()

    assert behind.result(10) == "behind"


def test_close_cancels_waiting_work() -> None:
    """And no more is accepted."""
    turns = FairThread("test")
    held, begun = threading.Event(), threading.Event()

    def holding() -> Generator[None, None, None]:
        begun.set()
        held.wait()
        yield

    turns.submit("acme", holding())
    assert begun.wait(10)
    waits = turns.submit("globex", steps(1, [], "x"))
    turns.close()
    later = turns.submit("acme", steps(1, [], "x"))
    assert not wait([waits, later], 10).not_done
    held.set()

    with pytest.raises(CancelledError):
        waits.result(10)
    with pytest.raises(CancelledError):
        later.result(10)


def test_memory_is_bounded_with_many_organisations(
    turns: FairThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while one of them always has work."""
    monkeypatch.setattr(worker.fair_thread, "REMEMBERED_MAX", 20)
    is_over = threading.Event()

    def going_on() -> Generator[None, None, None]:
        while not is_over.is_set():
            yield

    busy = turns.submit("busy", going_on())
    for n in range(60):
        turns.submit(f"org-{n}", steps(0, [], "x")).result(10)
        assert len(turns._taken_s) <= 22
    is_over.set()
    busy.result(10)
