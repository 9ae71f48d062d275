"""
Send task events a few times a second, not one by one.

Celery gathers the events of one turn of its hub into one message, two dozen at most. Under load a turn takes few
tasks along, so nearly every event became a PUBLISH of its own, made in the hub thread: a fifth of a worker's CPU for
each call. Whoever looks at Flower does not see a quarter of a second.
"""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer

FLUSH_S = 0.25
EVENTS_MAX = 500
"""Of one message, about 150 kB."""


class PacedConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, with a timer between events and their message; a full buffer still goes at once."""

    timer: Any
    event_dispatcher: Any
    _is_flush_set = False

    def on_send_event_buffered(self) -> None:
        """Have what is buffered sent soon; called for every event, in the hub thread or another."""
        if not self._is_flush_set:
            self._is_flush_set = True
            # Each connection has a dispatcher of its own.
            self.event_dispatcher.buffer_limit = EVENTS_MAX
            self.timer.call_after(FLUSH_S, self._flush_paced)

    def shutdown(self) -> None:
        """Send what is left before the connection goes."""
        self._flush_events()
        super().shutdown()

    def _flush_paced(self) -> None:
        # The flag falls first: an event that comes during the flush may miss it, but not the next one.
        self._is_flush_set = False
        self._flush_events()
