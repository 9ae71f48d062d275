"""
Deliver links: publish them, and keep what became of each.

Apart from recovery, which never waits for this. A process that ends calls tells their submitters at once, a few links
each; what is left, or failed, is delivered in turns of organisations, by a loop of its own in every worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import structlog

from callgate.domain.calls import CallKey
from callgate.domain.delivery import Delivery, told
from callgate.domain.errors import Unavailable
from callgate.domain.ports import ClockPort, LedgerPort, QueuePort

log = structlog.get_logger(__name__)

BATCH_MAX = 200
SAID_AGAIN_S = 60.0
"""How long a cause that was logged is only counted."""
CAUSES_MAX = 1_000


class DeliveryService:
    """Delivers links; one instance per process."""

    def __init__(self, *, ledger: LedgerPort, queue: QueuePort, clock: ClockPort) -> None:
        self._ledger = ledger
        self._queue = queue
        self._causes = _Causes(clock)
        self._after = ""

    def tell(self, keys: Sequence[CallKey]) -> None:
        """Tell submitters of calls that have just ended; whatever cannot be told now is left to `run`."""
        if not keys:
            return
        try:
            self._publish(self._ledger.links(limit=BATCH_MAX, keys=keys))
        except Unavailable as exc:
            log.warning("links.deferred", calls=len(keys), reason=str(exc))

    def run(self) -> int:
        """
        Deliver the next links, of the organisations whose turn it is.

        Returns:
            How many were tried; 0: none is due.

        Raises:
            LedgerUnavailable, BrokerUnavailable: What was taken is due again in ten seconds, and counts for nobody.
        """
        links = self._ledger.links(limit=BATCH_MAX, after=self._after)
        if not links and self._after:
            # The last in turn was served; the first is next.
            links = self._ledger.links(limit=BATCH_MAX)
        self._after = links[-1].org_id if links else ""
        self._publish(links)
        return len(links)

    def _publish(self, links: Sequence[Delivery]) -> None:
        if not links:
            return
        published = self._queue.publish_links(links)
        # Those behind an outage are not among them.
        outcomes = [told(link, one) for link, one in zip(links, published, strict=False)]
        self._ledger.deliver(outcomes)
        for link, outcome in zip(links, outcomes, strict=False):
            if outcome.why is not None:
                self._causes.count(link.org_id, outcome.why, is_given_up=outcome.again_s is None)
        self._causes.say()


class _Causes:
    """Why links fail, said once a minute per organisation and cause: there may be very many of them."""

    def __init__(self, clock: ClockPort) -> None:
        self._clock = clock
        self._counts: Counter[tuple[str, str, bool]] = Counter()
        self._said_at: dict[tuple[str, str, bool], float] = {}

    def count(self, org_id: str, why: str, *, is_given_up: bool) -> None:
        """Note one more."""
        self._counts[org_id, why, is_given_up] += 1

    def say(self) -> None:
        """Log those that were not logged lately."""
        now = self._clock.monotonic()
        for cause, count in list(self._counts.items()):
            if now - self._said_at.get(cause, -SAID_AGAIN_S) < SAID_AGAIN_S:
                continue
            org_id, why, is_given_up = cause
            event = "links_given_up" if is_given_up else "links_not_delivered"
            log.error(event, org_id=org_id, why=why, count=count)
            if len(self._said_at) >= CAUSES_MAX:
                self._said_at.clear()
            self._said_at[cause] = now
            del self._counts[cause]
