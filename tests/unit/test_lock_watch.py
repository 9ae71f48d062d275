"""The thread that has the table of locks watched: what it says, how often it looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import structlog

from callgate.domain.errors import LedgerUnavailable
from callgate.domain.reports import LockHoarder
from worker import lock_watch
from worker.lock_watch import LockWatch

AWAY = LedgerUnavailable("the ledger did not answer")
ACME = LockHoarder("acme_pipeline", 24_000, 7, True)


class FakeWatch:
    """Answers as it is told, then finds nothing."""

    def __init__(self, answers: Sequence[list[LockHoarder] | Exception]) -> None:
        self._answers: Iterator[list[LockHoarder] | Exception] = iter(answers)
        self.looked_at: list[float] = []
        self.is_done, self.is_closed = threading.Event(), threading.Event()

    def look(self) -> list[LockHoarder]:
        """Give the next answer."""
        self.looked_at.append(time.monotonic())
        answer = next(self._answers, None)
        if answer is None:
            self.is_done.set()
            return []
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Note it."""
        self.is_closed.set()


def said(watch: FakeWatch) -> list[tuple[str, str | None]]:
    """Run to the end of its answers: events and logins."""
    with structlog.testing.capture_logs() as logs:
        thread = LockWatch(watch)
        thread.start()
        assert watch.is_done.wait(10)
        thread.stop()
    assert watch.is_closed.is_set()
    return [(entry["event"], entry.get("login")) for entry in logs]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Do not wait a second between two looks."""

    def set_interval(seconds: float) -> None:
        monkeypatch.setattr(lock_watch, "INTERVAL_S", seconds)

    set_interval(0.01)
    return set_interval


def test_a_session_that_takes_a_moment_to_go_is_named_once() -> None:
    """Its successor is named again."""
    again = LockHoarder("acme_pipeline", 24_000, 8, True)

    assert (
        said(FakeWatch([[ACME], [ACME], [], [again]]))
        == [("client_session.ended", "acme_pipeline")] * 2
    )


def test_a_session_that_may_not_be_ended_is_named_as_such() -> None:
    """Once, as long as it is there."""
    kept = LockHoarder("acme_pipeline", 24_000, 7, False)

    assert said(FakeWatch([[kept]] * 3)) == [("client_session.end_failed", "acme_pipeline")]


def test_a_ledger_that_is_away_is_said_once() -> None:
    """Each time; and an error that nobody foresaw does not end the thread."""
    assert said(FakeWatch([AWAY, AWAY, [], AWAY, ValueError("odd")])) == [
        ("lock_watch.ledger_unavailable", None),
        ("lock_watch.ledger_unavailable", None),
        ("lock_watch.failed", None),
    ]


def test_it_looks_more_often_after_it_has_found_somebody(
    quick: Callable[[float], None],
) -> None:
    """For filling the table takes a client no second."""
    quick(2.0)
    watch = FakeWatch([[ACME], [ACME], []])
    began_at = time.monotonic()
    said(watch)

    assert time.monotonic() - began_at < 1


def test_a_watch_that_never_began_can_be_stopped() -> None:
    """As in a child that runs suspects."""
    watch = FakeWatch([])
    LockWatch(watch).stop()

    assert watch.is_closed.is_set()
    assert watch.looked_at == []
