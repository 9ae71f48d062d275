"""One thread that does the work of many organisations, a little of each in turn."""

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
"""Work that pauses between two short steps, and returns what it came to."""

TURN_S = 0.01
"""How long one organisation's work goes on, steps of it permitting, while others wait."""
REMEMBERED_MAX = 1_024


class Turns:
    """
    Does work step by step: within an organisation first come, first served; between them by the time they took so far.

    So one whose steps are long has fewer of them, and another never waits for more than the step that runs when it
    comes. Thread-safe. It starts its thread at the first piece of work. Whoever submits bounds how much may wait.

    Source: Goyal, Vin and Cheng, "Start-time Fair Queuing" (1996).
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: dict[str, deque[tuple[Steps[Any], Future[Any]]]] = {}
        self._taken_s: dict[str, float] = {}
        """By organisation; who comes after a pause is taken to have had as much as the one that was last served."""
        self._last_s = 0.0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def submit(self, org_id: str, steps: Steps[T]) -> Future[T]:
        """Have work done for an organisation; what is cancelled goes no further."""
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
        """Do no more: what waits is cancelled, and the thread ends after its step."""
        with self._changed:
            self._is_closed = True
            for queue in self._waiting.values():
                for _, future in queue:
                    _cancel(future)
            self._waiting.clear()
            self._changed.notify()

    def join(self, timeout_s: float) -> None:
        """Wait until the step that ran when this was closed has ended."""
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
        """The organisation that took the least; None if there is no more to do."""
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
    """Cancel it so that who waits for it by `concurrent.futures.wait` is told."""
    if future.cancel():
        future.set_running_or_notify_cancel()


def _take_turn(steps: Steps[Any], future: Future[Any]) -> bool:
    """Work for one turn; True if nothing is left to do."""
    ends_at = time.monotonic() + TURN_S
    # It may be cancelled at any moment: nobody waits for its result then.
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
