"""
A message wakes a worker, and that is all it may do.

Of a message nothing is believed but the ids it names. Celery also obeys headers: a time limit in a forged message would
cut a call off in the middle of its paid request, an expiry in the past would have its id refused for hours in every
message after it, an ETA would fill the worker's memory. Follow-ups in its body (`follow_ups` of the tasks) would have
the worker publish, or, where they are broken, never acknowledge the message. What limits a call is in the ledger and
the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.worker.control import Panel
from celery.worker.request import Request

NOT_OBEYED = {"timelimit": None, "expires": None, "eta": None}
QUESTIONS = frozenset(
    {
        *("ping", "stats", "conf", "report", "clock", "query_task"),
        *("active", "active_queues", "registered", "reserved", "scheduled", "revoked"),
        # Flower asks for events when it starts.
        "enable_events",
    }
)
"""Broadcasts a worker answers. The others stop it, stop its tasks, or have it consume what is not its own."""


class WakeUp(Request):  # type: ignore[misc]
    """A delivery that only names what to look at; whoever wants a call not to run cancels it in the ledger."""

    def __init__(self, message: Any, *, headers: Mapping[str, Any] | None = None, **options: Any):
        super().__init__(message, headers={**(headers or message.headers), **NOT_OBEYED}, **options)

    def revoked(self) -> bool:
        """No: the ledger says what runs."""
        return False


def answer_questions_only() -> None:
    """Have the workers of this process obey no command that comes through the broker."""
    for name in set(Panel.data) - QUESTIONS:
        del Panel.data[name]
