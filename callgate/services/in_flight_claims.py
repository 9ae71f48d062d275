"""Deliveries that have reached this process and have not yet tried to claim their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from callgate.domain.ports import ClockPort

POLL_S = 0.02


class InFlightClaims:
    """Lets a sweep wait for them: a call that is queued only because its delivery is still here is not lost."""

    def __init__(self, clock: ClockPort) -> None:
        self._clock = clock
        self._deliveries: set[object] = set()

    @contextmanager
    def arrive(self) -> Iterator[Callable[[], None]]:
        """Count a delivery until it calls what this yields, at the latest until the block ends."""
        delivery = object()
        self._deliveries.add(delivery)
        claimed = partial(self._deliveries.discard, delivery)
        try:
            yield claimed
        finally:
            claimed()

    async def wait(self, give_up_after_s: float) -> bool:
        """
        Wait until every delivery that is here now has tried to claim its call.

        Returns:
            False if some had not after `give_up_after_s` seconds.
        """
        arrived = set(self._deliveries)
        give_up_at = self._clock.monotonic() + give_up_after_s
        while arrived & self._deliveries:
            if self._clock.monotonic() > give_up_at:
                return False
            await self._clock.sleep(POLL_S)
        return True
