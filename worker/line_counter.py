"""
Count the lines of a log that say the same, and say in each bad line what to do.

A wrong key or an outage of the ledger fails a thousand calls in the same way. Its first line is written at once. Those
that follow are counted, and the newest of them is written once a minute with the count. Which events are counted, and
what makes two causes the same, is in the table of events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from structlog.types import EventDict

from callgate.domain.log_events import EVENTS, Event, Level

INTERVAL_S = 60.0
"""Between two lines of one cause, at least."""
FLUSH_INTERVAL_S = 5.0
CAUSES_MAX = 1_000
"""Beyond so many, lines of one event share a cause: an attacker can make organisations, but no lines."""

Cause = tuple[Any, ...]


@dataclass(slots=True)
class _Counted:
    """The lines of one cause since the last that was written."""

    written_at: float
    count: int = 0
    logger_name: str = ""
    newest: EventDict | None = None


class LineCounter:
    """A processor of structlog; threads may share it."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        interval_s: float = INTERVAL_S,
        causes_max: int = CAUSES_MAX,
        left_out: Collection[str] = (),
    ) -> None:
        """
        Count nothing yet.

        Args:
            left_out: Events that are not written at all.
        """
        self._left_out = left_out
        self._monotonic = monotonic
        self._interval_s = interval_s
        self._causes_max = causes_max
        self._lock = threading.Lock()
        self._causes: dict[Cause, _Counted] = {}

    def __call__(self, logger: Any, _method: str, line: EventDict) -> EventDict:
        """
        Pass a line on, with what to do and how many it stands for.

        Raises:
            structlog.DropEvent: It is counted only, or left out.
        """
        event = EVENTS.get(line["event"])
        if event is None:
            return line
        if event.name in self._left_out:
            raise structlog.DropEvent
        if event.level is not Level.INFO:
            line.setdefault("todo", event.remedy)
        if event.counted_by is None or "count" in line:
            return line
        line["count"] = self._count(event, event.counted_by(line), line, logger)
        return line

    def flush(self, *, all_at_once: bool = False) -> None:
        """Write the counts whose interval is over, or all, and forget causes that have not come again."""
        for counted in self._take(all_at_once):
            fields: dict[str, Any] = dict(counted.newest or {})
            log = structlog.get_logger(counted.logger_name)
            getattr(log, EVENTS[fields["event"]].level)(**fields, count=counted.count)

    @contextmanager
    def flushing(self) -> Iterator[None]:
        """Flush every few seconds, in a thread of its own, and in the end."""
        is_ending = threading.Event()

        def run() -> None:
            while not is_ending.wait(FLUSH_INTERVAL_S):
                self.flush()

        thread = threading.Thread(target=run, name="log-counts", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_ending.set()
            thread.join()
            self.flush(all_at_once=True)

    def _count(self, event: Event, cause: Cause, line: Mapping[str, Any], logger: Any) -> int:
        key = (event.name, *cause)
        with self._lock:
            now = self._monotonic()
            if key not in self._causes and len(self._causes) >= self._causes_max:
                key = (event.name,)
            counted = self._causes.get(key)
            if counted is None:
                self._causes[key] = _Counted(now)
                return 1
            counted.count += 1
            if now - counted.written_at >= self._interval_s:
                count, counted.count, counted.newest, counted.written_at = (
                    counted.count,
                    0,
                    None,
                    now,
                )
                return count
            counted.newest, counted.logger_name = dict(line), getattr(logger, "name", "")
        raise structlog.DropEvent

    def _take(self, all_at_once: bool) -> list[_Counted]:
        taken = []
        with self._lock:
            now = self._monotonic()
            for key, counted in list(self._causes.items()):
                if now - counted.written_at < self._interval_s and not all_at_once:
                    continue
                if counted.count:
                    taken.append(counted)
                    self._causes[key] = _Counted(now)
                else:
                    del self._causes[key]
        return taken
