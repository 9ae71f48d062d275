"""
Send task events a few times per second instead of one by one.

Celery sends the events of one turn of its hub as one message, two dozen at most. Under load a turn handles few tasks,
so nearly every event became a PUBLISH of its own in the hub thread: a fifth of a worker's CPU per call. In Flower the
delay of a quarter of a second is not visible.
"""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer

FLUSH_S = 0.25
EVENTS_MAX = 500
"""Of one message, about 150 kB."""


class PacedConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, with a timer between events and their message. A full buffer is still sent at once."""

    timer: Any
    event_dispatcher: Any
    _is_flush_scheduled = False

    def on_send_event_buffered(self) -> None:
        """Schedule a flush; Celery calls this for every event, in the hub thread or another."""
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            # Each connection has its own dispatcher.
            self.event_dispatcher.buffer_limit = EVENTS_MAX
            self.timer.call_after(FLUSH_S, self._flush_paced)

    def shutdown(self) -> None:
        """Send what is left before the connection is closed."""
        self._flush_events()
        super().shutdown()

    def _flush_paced(self) -> None:
        # The flag is cleared first: an event added during the flush goes with it, or schedules the next one.
        self._is_flush_scheduled = False
        self._flush_events()
