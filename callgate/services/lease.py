"""
A process's own side of its lease: renew it, and know for sure whether it still holds.

The ledger grants a lease for some seconds by its own clock; the process counts from before it asked, by a clock of its
own that never goes back, and relies on the first half. So no two clocks are compared, and a whole half lies between the
moment this process stops sending and the first moment at which the ledger may give its attempts away.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from callgate.domain.ports import ClockPort, LeasePort

log = structlog.get_logger(__name__)

TRUSTED_SHARE = 0.5
"""The share of a lease that its process relies on; the ledger's functions know it too."""
RENEW_AT_SHARE = 0.25
"""The share of a lease after which it is renewed."""


class LeaseService:
    """
    The lease of this process.

    `renew` and `release` are called by one thread, `epoch` by any.
    """

    def __init__(
        self, *, leases: LeasePort, clock: ClockPort, worker_id: str, lease_s: float
    ) -> None:
        self._leases = leases
        self._clock = clock
        self._worker_id = worker_id
        self._lease_s = lease_s
        self._current: tuple[datetime, float] | None = None
        """When the lease began, and until when it is relied on, by this process's clock."""

    def epoch(self) -> datetime | None:
        """
        When the lease that certainly holds now began; None if it may have run out.

        The same answer twice means that the lease held all the time in between: what was claimed after the first may be
        sent after the second.
        """
        current = self._current
        return current[0] if current and self._clock.monotonic() < current[1] else None

    def renew(self) -> None:
        """
        Prolong the lease.

        Raises:
            LedgerUnavailable: It holds on until its half is over; renewing again is safe.
        """
        asked_at = self._clock.monotonic()
        began_at = self._leases.renew(self._worker_id, self._lease_s)
        if self._current and self._current[0] != began_at:
            log.warning("worker_lease.expired", worker_id=self._worker_id)
        self._current = (began_at, asked_at + self._lease_s * TRUSTED_SHARE)

    def release(self) -> None:
        """
        Give the lease back: nothing in this process sends any more, and what it left is due for others.

        Raises:
            LedgerUnavailable: It will run out by itself.
        """
        self._current = None
        self._leases.release(self._worker_id)
