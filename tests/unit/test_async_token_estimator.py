"""Where a worker counts tokens, and in whose turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import closing

from callgate.domain.catalogue import CallTypePolicy, Catalogue, ProviderEntry
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest
from tests.support.service_world import a_request
from worker.async_token_estimator import CHARS_MAX, AsyncTokenEstimator

CATALOGUE = Catalogue(providers={"sim": ProviderEntry()}, default=CallTypePolicy())


class ThreadRecorder:
    """A `TokenEstimatorPort` that returns the thread that asked it."""

    def counting(self, request: LLMRequest, stop_above: int) -> Generator[None, None, TokenBound]:
        """One token, by the name of the thread."""
        yield
        return TokenBound(1, threading.current_thread().name)


class Endless:
    """A `TokenEstimatorPort` that counts the texts of one organisation until the test ends."""

    def __init__(self) -> None:
        self.is_over = threading.Event()

    def counting(self, request: LLMRequest, stop_above: int) -> Generator[None, None, TokenBound]:
        """Go on while it is acme's."""
        while request.org_id == "acme" and not self.is_over.is_set():
            yield
        return TokenBound(1, request.org_id)


def counted_in(text: str) -> str:
    """The thread that counted a text; the event loop runs in the main thread."""
    with closing(AsyncTokenEstimator(CATALOGUE, ThreadRecorder())) as lane:
        return asyncio.run(lane.ask_gates(a_request(text, max_output_tokens=5), 0)).method


def test_only_long_texts_leave_the_event_loop() -> None:
    """A short text costs less than a switch of threads; a long one would block the loop."""
    assert counted_in("x" * CHARS_MAX) == threading.main_thread().name
    assert counted_in("x" * (CHARS_MAX + 1)).startswith("tokens")


def test_one_organisation_does_not_wait_for_the_texts_of_another() -> None:
    """However many and however long they are."""
    text = "x" * (CHARS_MAX + 1)
    estimator = Endless()

    async def count() -> None:
        with closing(AsyncTokenEstimator(CATALOGUE, estimator)) as lane:
            slow = [
                asyncio.create_task(lane.ask_gates(a_request(text, max_output_tokens=5), 0))
                for _ in range(6)
            ]
            await asyncio.sleep(0)
            async with asyncio.timeout(30):
                bound = await lane.ask_gates(
                    a_request(text, org_id="globex", max_output_tokens=5), 0
                )
            assert bound.method == "globex"
            assert not any(task.done() for task in slow)
            estimator.is_over.set()
            await asyncio.gather(*slow)

    asyncio.run(count())
