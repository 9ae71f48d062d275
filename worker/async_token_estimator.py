"""Asking gates as coroutines see it: short inputs at once, long ones where they hold up no other call."""

from __future__ import annotations

import asyncio

from callgate.domain import gates
from callgate.domain.catalogue import Catalogue
from callgate.domain.ports import TokenEstimatorPort
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest
from worker.turns import Turns

CHARS_MAX = 16_384
"""Counted in the event loop up to here: within a millisecond, and a thread's turn costs a part of that too."""


class AsyncTokenEstimator:
    """
    Asks the gates for one process's event loop; what takes time is reading schemas and counting tokens.

    One thread: counting is work of the processor, and more threads would only take more of it from the loop.
    Organisations take turns in it, in steps of some milliseconds, however long their texts are. As many wait as calls
    are in flight.
    """

    def __init__(self, catalogue: Catalogue, estimator: TokenEstimatorPort) -> None:
        self._catalogue = catalogue
        self._estimator = estimator
        self._turns = Turns("tokens")

    async def ask_gates(self, request: LLMRequest, counted: int) -> TokenBound:
        """Ask every gate; see `gates.checking`."""
        if _chars_of(request) <= CHARS_MAX:
            return gates.check(request, self._catalogue, self._estimator, counted)
        steps = gates.checking(request, self._catalogue, self._estimator, counted)
        return await asyncio.wrap_future(self._turns.submit(request.org_id, steps))

    def close(self) -> None:
        """Count no more."""
        self._turns.close()


def _chars_of(request: LLMRequest) -> int:
    return sum(len(m.content) for m in request.messages) + len(request.response_schema or "")
