"""One thread that works for many organisations, in turns."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work in short steps: it yields between them, and returns its result."""

TURN_S = 0.01
"""How long one organisation's turn lasts while others wait; a step is not interrupted."""
REMEMBERED_MAX = 1_024


class FairThread:
    """
    Runs work step by step: first come, first served within an organisation; between organisations the one with the
    least time so far is next.

    An organisation with long steps thus gets fewer of them, and a new one waits at most for the step that runs.
    Thread-safe. The thread starts with the first work. The callers bound how much work may wait.

    Source: Goyal, Vin and Cheng, "Start-time Fair Queuing" (1996).
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: dict[str, deque[tuple[Steps[Any], Future[Any]]]] = {}
        self._taken_s: dict[str, float] = {}
        """By organisation. One that returns after a pause starts with the time of the one served last."""
        self._last_s = 0.0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def submit(self, org_id: str, steps: Steps[T]) -> Future[T]:
        """Run work for an organisation; cancelled work stops after its step."""
        future: Future[T] = Future()
        with self._changed:
            if self._is_closed:
                _cancel(future)
                return future
            if org_id not in self._waiting:
                self._taken_s[org_id] = max(self._taken_s.get(org_id, 0.0), self._last_s)
            self._waiting.setdefault(org_id, deque()).append((steps, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()
        return future

    def close(self) -> None:
        """Cancel the waiting work, and end the thread after its step."""
        with self._changed:
            self._is_closed = True
            for queue in self._waiting.values():
                for _, future in queue:
                    _cancel(future)
            self._waiting.clear()
            self._changed.notify()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended; call after `close`."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (org_id := self._next()) is not None:
            with self._changed:
                if not (queue := self._waiting.get(org_id)):
                    continue
                steps, future = queue[0]
            began = time.monotonic()
            is_done = _take_turn(steps, future)
            with self._changed:
                taken_s = time.monotonic() - began
                self._taken_s[org_id] = self._taken_s.get(org_id, 0.0) + taken_s
                if is_done and self._waiting.get(org_id):
                    self._waiting[org_id].popleft()

    def _next(self) -> str | None:
        """Return the organisation with the least time; None after `close`."""
        with self._changed:
            while True:
                for org_id in [org for org, queue in self._waiting.items() if not queue]:
                    del self._waiting[org_id]
                if self._waiting:
                    break
                if self._is_closed:
                    return None
                self._taken_s.clear()
                self._last_s = 0.0
                self._changed.wait()
            chosen = min(self._waiting, key=self._taken_s.__getitem__)
            self._last_s = self._taken_s[chosen]
            if len(self._taken_s) > REMEMBERED_MAX:
                self._taken_s = {org: self._taken_s[org] for org in self._waiting}
            return chosen


def _cancel(future: Future[Any]) -> None:
    """Cancel it so that `concurrent.futures.wait` returns."""
    if future.cancel():
        future.set_running_or_notify_cancel()


def _take_turn(steps: Steps[Any], future: Future[Any]) -> bool:
    """Work for one turn; True if nothing is left to do."""
    ends_at = time.monotonic() + TURN_S
    # InvalidStateError: it was cancelled meanwhile.
    with suppress(InvalidStateError):
        try:
            while not future.cancelled():
                next(steps)
                if time.monotonic() >= ends_at:
                    return False
        except StopIteration as end:
            future.set_result(end.value)
        except BaseException as error:
            future.set_exception(error)
    return True
