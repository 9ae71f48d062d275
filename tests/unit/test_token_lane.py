"""Where a worker counts tokens."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing

from callgate.domain.models import LLMRequest
from callgate.domain.ports import TokenBound
from tests.unit.stage import a_request
from worker.token_lane import CHARS_MAX, TokenLane


class Whereabouts:
    """A `TokenEstimatorPort` that says where it was asked."""

    def input_bound(self, request: LLMRequest) -> TokenBound:
        """One token, by the name of the thread."""
        return TokenBound(1, threading.current_thread().name)


def counted_in(text: str) -> str:
    """The thread that counts a text; the event loop's is the main one."""
    with closing(TokenLane(Whereabouts())) as lane:
        return asyncio.run(lane.input_bound(a_request(text))).method


def test_only_long_texts_leave_the_event_loop() -> None:
    """A short one costs less than a thread's turn; a long one would hold up a thousand other calls."""
    assert counted_in("x" * CHARS_MAX) == threading.main_thread().name
    assert counted_in("x" * (CHARS_MAX + 1)).startswith("tokens")
