"""Counting tokens as coroutines see it: short inputs at once, long ones where they hold up no other call."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from callgate.domain.models import LLMRequest
from callgate.domain.ports import TokenBound, TokenEstimatorPort

CHARS_MAX = 16_384
"""Counted in the event loop up to here: within a millisecond, and a thread's turn costs a part of that too."""


class TokenLane:
    """
    Bounds inputs for one process's event loop.

    One thread: counting is work of the processor, and more threads would only take more of it from the loop.
    """

    def __init__(self, estimator: TokenEstimatorPort) -> None:
        self._estimator = estimator
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokens")

    async def input_bound(self, request: LLMRequest) -> TokenBound:
        """Never less than what the provider will count; see `TokenEstimatorPort`."""
        if _chars_of(request) <= CHARS_MAX:
            return self._estimator.input_bound(request)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._estimator.input_bound, request)

    def close(self) -> None:
        """Count no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _chars_of(request: LLMRequest) -> int:
    return sum(len(m.content) for m in request.messages) + len(request.response_schema or "")
