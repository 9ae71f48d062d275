"""What Flower keeps of events and of workers' replies: checked, and no more than fits."""

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
"""Workers times the names of tasks they ran: each pair has a row of counters."""
WAITING_MAX = 10_000
"""Events between the thread that hears them and the one that keeps them; the oldest give way."""
KEPT_AT_ONCE = 200
"""Events kept between two looks at the network: pages are answered meanwhile."""
RETRY_S = 2.0


class Receiver(EventReceiver):  # type: ignore[misc]
    """Hears events, and hands on what `checked` leaves of them. Its logical clock obeys none of them."""

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
    """Flower's state. When it knows more pairs of worker and task than fit, it forgets all, and begins again."""

    def __init__(self, **limits: int) -> None:
        super().__init__(**limits)
        self._pairs: set[tuple[str, str | None]] = set()

    def event(self, event: dict[str, Any]) -> None:
        """Keep one event that was checked."""
        task = self.tasks.data.get(event.get("uuid"))
        self._pairs.add((event["hostname"], event.get("name") or (task and task.name)))
        if len(self._pairs) > PAIRS_MAX:
            self._forget()
        try:
            super().event(event)
        except Exception as error:
            # Flower reads some texts as Python, and expects few of the ways in which that fails.
            log.warning("flower_event.truncated", reason=type(error).__name__)

    def _forget(self) -> None:
        log.warning("flower_state.cleared", pairs_max=PAIRS_MAX)
        self.clear(ready=False)
        kept = (self.counter, self.tasks_by_type, self.tasks_by_worker, self._seen_types)
        for table in (*kept, self._tasks_to_resolve, self._pairs, *vars(self.metrics).values()):
            table.clear()


class BoundedEvents(Events):  # type: ignore[misc]
    """Flower's thread that hears events."""

    def __init__(self, capp: Any, io_loop: Any) -> None:
        super().__init__(capp, io_loop, max_tasks_in_memory=TASKS_MAX)
        self.state = BoundedState(max_tasks_in_memory=TASKS_MAX, max_workers_in_memory=WORKERS_MAX)
        self._waiting: deque[dict[str, Any]] = deque(maxlen=WAITING_MAX)
        self._is_keeping = False

    def run(self) -> None:
        """Hear events, again after each failure. Flower's own waits twice as long each time, without end."""
        while True:
            try:
                with self.capp.connection() as connection:
                    heard = {"*": self.on_event}
                    receiver = Receiver(connection, handlers=heard, app=self.capp)
                    receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as error:
                log.warning("flower_events.interrupted", reason=str(error), retry_after_s=RETRY_S)
                time.sleep(RETRY_S)

    def on_event(self, event: dict[str, Any]) -> None:
        """Have an event kept by the thread that answers requests."""
        self._waiting.append(event)
        if not self._is_keeping:
            self._is_keeping = True
            self.io_loop.add_callback(self._keep)

    def _keep(self) -> None:
        # The flag falls first: an event that comes meanwhile may miss it, but not the next one.
        self._is_keeping = False
        for _ in range(min(len(self._waiting), KEPT_AT_ONCE)):
            self.state.event(self._waiting.popleft())
        if self._waiting and not self._is_keeping:
            self._is_keeping = True
            self.io_loop.add_callback(self._keep)


class BoundedInspector(Inspector):  # type: ignore[misc]
    """Flower's questions to workers; what answers was checked, too."""

    def _on_update(self, workername: str, method: str, response: Any) -> None:
        if not fits(workername, method, response):
            log.warning("flower_reply.discarded", method=method)
            return
        if workername not in self.workers and len(self.workers) >= WORKERS_MAX:
            self.workers.clear()
        super()._on_update(workername, method, response)
