"""Requests that are too large to have one in memory for each call that runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime

from callgate.domain.calls import CallView, WaitReason
from callgate.domain.ledger import Defer
from callgate.domain.ports import ClockPort
from callgate.services.reservations import error_json

RequestRoom = Callable[[str, int], AbstractContextManager[bool]]
"""Takes memory for so many bytes of an organisation while a block lasts; False if there is none."""
LARGE_WAIT_MIN_S, LARGE_WAIT_MAX_S = 1.0, 60.0
"""A large request waits a quarter of its age for room, within these bounds."""
LARGE = error_json("large", "its request is large; it waits for room in a worker's memory")


def endless_room(_org_id: str, _size: int) -> AbstractContextManager[bool]:
    """The room of a process that runs one call at a time."""
    return nullcontext(True)


class LargeRequests:
    """Gives large requests room in memory, or lets them wait."""

    def __init__(self, room: RequestRoom, *, clock: ClockPort, now: Callable[[], datetime]) -> None:
        self._room = room
        self._clock = clock
        self._now = now

    def room(self, view: CallView, answer_bytes: int = 0) -> AbstractContextManager[bool]:
        """Take memory for a call's request, and for the answer that it repairs."""
        return self._room(view.org_id, view.request_bytes + answer_bytes)

    def defer(self, view: CallView) -> Defer:
        """Let the call wait in the ledger: here it would take a slot that others need."""
        age_s = (self._now() - view.created_at).total_seconds()
        wait_s = min(max(age_s / 4, LARGE_WAIT_MIN_S), LARGE_WAIT_MAX_S)
        return Defer(view.key, LARGE, wait_s * (0.5 + self._clock.jitter()), WaitReason.MEMORY)
