"""Flower's memory of events and replies, checked and bounded."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import structlog
from celery.events import EventReceiver
from celery.utils.time import utcoffset
from flower.events import Events, EventsState
from flower.inspector import Inspector

from worker.flower.events import checked, fits

log = structlog.get_logger(__name__)

TASKS_MAX = 10_000
WORKERS_MAX = 1_000
PAIRS_MAX = 2_000
"""Pairs of a worker and the name of a task that it ran; each has counters."""
WAITING_MAX = 10_000
"""Events between the receiving thread and the storing one; the oldest are dropped."""
STORED_AT_ONCE = 200
"""Events stored in one turn of the event loop, which also answers requests."""
RETRY_S = 2.0


class Receiver(EventReceiver):  # type: ignore[misc]
    """Receives events and passes on what `checked` returns. Events do not change its logical clock."""

    refused = 0

    def _receive(self, body: Any, message: Any, **_: Any) -> None:
        now, here_h = time.time(), utcoffset()
        for event in body if isinstance(body, list) else [body]:
            kept = checked(event, now=now, here_h=here_h)
            if kept is None:
                self.refused += 1
                if self.refused & (self.refused - 1) == 0:
                    log.warning("flower_events.discarded", count=self.refused)
            else:
                self.process(kept["type"], kept)


class BoundedState(EventsState):  # type: ignore[misc]
    """Flower's state, cleared when it has too many pairs of worker and task."""

    def __init__(self, **limits: int) -> None:
        super().__init__(**limits)
        self._pairs: set[tuple[str, str | None]] = set()

    def event(self, event: dict[str, Any]) -> None:
        """Store one checked event."""
        task = self.tasks.data.get(event.get("uuid"))
        self._pairs.add((event["hostname"], event.get("name") or (task and task.name)))
        if len(self._pairs) > PAIRS_MAX:
            self._forget()
        try:
            super().event(event)
        except Exception as error:
            # Flower parses some texts as Python, and does not catch all errors of that.
            log.warning("flower_event.truncated", reason=type(error).__name__)

    def _forget(self) -> None:
        log.warning("flower_state.cleared", pairs_max=PAIRS_MAX)
        self.clear(ready=False)
        kept = (self.counter, self.tasks_by_type, self.tasks_by_worker, self._seen_types)
        for table in (*kept, self._tasks_to_resolve, self._pairs, *vars(self.metrics).values()):
            table.clear()


class BoundedEvents(Events):  # type: ignore[misc]
    """Flower's thread that receives events."""

    def __init__(self, capp: Any, io_loop: Any) -> None:
        super().__init__(capp, io_loop, max_tasks_in_memory=TASKS_MAX)
        self.state = BoundedState(max_tasks_in_memory=TASKS_MAX, max_workers_in_memory=WORKERS_MAX)
        self._waiting: deque[dict[str, Any]] = deque(maxlen=WAITING_MAX)
        self._is_scheduled = False

    def run(self) -> None:
        """Receive events, and reconnect after each error. Flower's own pause doubles without a limit."""
        while True:
            try:
                with self.capp.connection() as connection:
                    handlers = {"*": self.on_event}
                    receiver = Receiver(connection, handlers=handlers, app=self.capp)
                    receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as error:
                log.warning("flower_events.interrupted", reason=str(error), retry_after_s=RETRY_S)
                time.sleep(RETRY_S)

    def on_event(self, event: dict[str, Any]) -> None:
        """Pass an event to the thread that answers requests, which stores it."""
        self._waiting.append(event)
        if not self._is_scheduled:
            self._is_scheduled = True
            self.io_loop.add_callback(self._store)

    def _store(self) -> None:
        # The flag is cleared first: an event that arrives meanwhile is stored now, or schedules the next turn.
        self._is_scheduled = False
        for _ in range(min(len(self._waiting), STORED_AT_ONCE)):
            self.state.event(self._waiting.popleft())
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            self.io_loop.add_callback(self._store)


class BoundedInspector(Inspector):  # type: ignore[misc]
    """Flower's inspections of workers, with checked replies."""

    def _on_update(self, workername: str, method: str, response: Any) -> None:
        if not fits(workername, method, response):
            log.warning("flower_reply.discarded", method=method)
            return
        if workername not in self.workers and len(self.workers) >= WORKERS_MAX:
            self.workers.clear()
        super()._on_update(workername, method, response)
