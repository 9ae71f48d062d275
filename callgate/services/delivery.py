"""
Deliver links: publish them, and keep the result of each.

A process that ends calls delivers a few of their links at once. A loop in each worker delivers the rest, and repeats
what failed; organisations take turns. Recovery never waits for this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from callgate.domain import metrics
from callgate.domain.calls import CallKey
from callgate.domain.delivery import Delivery, LinkOutcome, link_outcome_of
from callgate.domain.errors import Unavailable
from callgate.domain.metric_ports import NO_METER, Meter
from callgate.domain.ports import ClockPort, LedgerPort, QueuePort
from callgate.event_log import event_log

log = event_log(__name__)

BATCH_MAX = 200
LOG_AGAIN_AFTER_S = 60.0
"""After a cause was logged, it is only counted for this long."""
CAUSES_MAX = 1_000


class DeliveryService:
    """Delivers links; one instance per process."""

    def __init__(
        self,
        *,
        ledger: LedgerPort,
        queue: QueuePort,
        clock: ClockPort,
        meter: Meter = NO_METER,
    ) -> None:
        self._meter = meter
        self._ledger = ledger
        self._queue = queue
        self._causes = _Causes(clock)
        self._after = ""

    def deliver(self, keys: Sequence[CallKey]) -> None:
        """Deliver links of calls that have just ended; `run` delivers the rest later."""
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
            LedgerUnavailable, BrokerUnavailable: The links are due again in ten seconds, and no try is counted.
        """
        links = self._ledger.links(limit=BATCH_MAX, after=self._after)
        if not links and self._after:
            # The last organisation was served; the first one is next.
            links = self._ledger.links(limit=BATCH_MAX)
        self._after = links[-1].org_id if links else ""
        self._publish(links)
        return len(links)

    def _publish(self, links: Sequence[Delivery]) -> None:
        if not links:
            return
        published = self._queue.publish_links(links)
        # Links that an outage stopped are not in the results.
        outcomes = [link_outcome_of(link, one) for link, one in zip(links, published, strict=False)]
        self._ledger.keep_link_outcomes(outcomes)
        for link, outcome in zip(links, outcomes, strict=False):
            self._meter.count(metrics.LINKS, _outcome_of(outcome))
            if outcome.why is not None:
                self._causes.count(link.org_id, outcome.why, is_given_up=outcome.again_s is None)
        self._causes.log()


def _outcome_of(kept: LinkOutcome) -> str:
    if kept.why is None:
        return "delivered"
    return "abandoned" if kept.again_s is None else "deferred"


class _Causes:
    """Why links fail, logged once a minute per organisation and cause, because there may be many."""

    def __init__(self, clock: ClockPort) -> None:
        self._clock = clock
        self._counts: Counter[tuple[str, str, bool]] = Counter()
        self._logged_at: dict[tuple[str, str, bool], float] = {}

    def count(self, org_id: str, why: str, *, is_given_up: bool) -> None:
        """Count one failure."""
        self._counts[org_id, why, is_given_up] += 1

    def log(self) -> None:
        """Log the causes that were not logged lately."""
        now = self._clock.monotonic()
        for cause, count in list(self._counts.items()):
            if now - self._logged_at.get(cause, -LOG_AGAIN_AFTER_S) < LOG_AGAIN_AFTER_S:
                continue
            org_id, why, is_given_up = cause
            event = "links.abandoned" if is_given_up else "links.not_delivered"
            log.error(event, org_id=org_id, reason=why, count=count)
            if len(self._logged_at) >= CAUSES_MAX:
                self._logged_at.clear()
            self._logged_at[cause] = now
            del self._counts[cause]
