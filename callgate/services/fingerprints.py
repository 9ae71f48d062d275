"""Publish what this worker is made of, and log which other workers differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from callgate.domain.fingerprints import NO_SECTIONS, Fingerprint, differing
from callgate.domain.ports import ClockPort, FingerprintPort
from callgate.event_log import event_log
from callgate.services.doctor import named

log = event_log(__name__)

COMPARE_INTERVAL_S = 60.0


class FingerprintKeeper:
    """One per worker; one thread at a time runs it."""

    def __init__(
        self,
        *,
        fingerprints: FingerprintPort,
        own: Fingerprint,
        sections: Mapping[str, str] = NO_SECTIONS,
        worker_id: str,
        lease_epoch: Callable[[], object | None],
        clock: ClockPort,
    ) -> None:
        """
        Compose.

        Args:
            sections: Digests of the catalogue's sections, by name.
            lease_epoch: See `LeaseService.epoch`. The fingerprint belongs to the lease, and is lost with it.
        """
        self._fingerprints = fingerprints
        self._own = own
        self._sections = sections
        self._worker_id = worker_id
        self._lease_epoch = lease_epoch
        self._clock = clock
        self._published_for: object | None = None
        self._compare_at = 0.0
        self._seen: frozenset[str] = frozenset()

    def run(self) -> None:
        """
        Publish with each new lease, and compare every minute. What differs is logged when that changes.

        Raises:
            LedgerUnavailable: The next run does what this one did not.
        """
        epoch = self._lease_epoch()
        if epoch is None:
            return
        if epoch != self._published_for:
            self._fingerprints.publish(self._worker_id, self._own, self._sections)
            self._published_for = epoch
            self._compare_at = 0.0
        if self._clock.monotonic() >= self._compare_at:
            self._compare()
            self._compare_at = self._clock.monotonic() + COMPARE_INTERVAL_S

    def _compare(self) -> None:
        found = differing(self._own, self._fingerprints.workers())
        if found.keys() != self._seen and found:
            workers = {name: named(ids) for name, ids in found.items()}
            log.warning("fingerprint.differed", worker_id=self._worker_id, others=workers)
        self._seen = frozenset(found)
