"""The gates for coroutines: short inputs are checked at once, long ones in a thread."""

from __future__ import annotations

import asyncio

from callgate.domain import gates
from callgate.domain.catalogue import Catalogue
from callgate.domain.ports import TokenEstimatorPort
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest
from worker.fair_thread import FairThread

CHARS_MAX = 16_384
"""Up to this length tokens are counted in the event loop: it takes less than a millisecond."""


class AsyncTokenEstimator:
    """
    Asks the gates for one event loop. Reading schemas and counting tokens take time.

    There is one thread: counting needs the CPU, and more threads would only take more of it from the loop.
    Organisations take turns, in steps of some milliseconds, whatever the length of their texts. The calls in flight
    bound how many wait.
    """

    def __init__(self, catalogue: Catalogue, estimator: TokenEstimatorPort) -> None:
        self._catalogue = catalogue
        self._estimator = estimator
        self._turns = FairThread("tokens")

    async def ask_gates(self, request: LLMRequest, counted: int) -> TokenBound:
        """Ask every gate; see `gates.check_in_steps`."""
        if _chars_of(request) <= CHARS_MAX:
            return gates.check(request, self._catalogue, self._estimator, counted)
        steps = gates.check_in_steps(request, self._catalogue, self._estimator, counted)
        return await asyncio.wrap_future(self._turns.submit(request.org_id, steps))

    def close(self) -> None:
        """Stop counting."""
        self._turns.close()


def _chars_of(request: LLMRequest) -> int:
    return sum(len(m.content) for m in request.messages) + len(request.response_schema or "")
