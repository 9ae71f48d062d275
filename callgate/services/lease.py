"""
A process's side of its lease: renew it, and know whether it surely holds.

The ledger grants a lease for some seconds of its own clock. The process counts from before it asked, by its own
monotonic clock, and trusts only the first half of the lease. So no two clocks are compared, and the process has stopped
sending half a lease before the ledger may give its attempts away.
"""

from __future__ import annotations

from datetime import datetime

from callgate.domain.ports import ClockPort, LeasePort
from callgate.event_log import event_log

log = event_log(__name__)

TRUSTED_SHARE = 0.5
"""The share of a lease that its process trusts. The ledger's SQL functions contain the same number."""
RENEW_AT_SHARE = 0.25
"""The share of a lease after which it is renewed."""


class LeaseService:
    """
    The lease of this process.

    `renew` and `release` are called by one thread, `epoch` by any.
    """

    def __init__(
        self,
        *,
        leases: LeasePort,
        clock: ClockPort,
        worker_id: str,
        lease_s: float,
        slots: int | None,
    ) -> None:
        self._leases = leases
        self._clock = clock
        self._worker_id = worker_id
        self._lease_s = lease_s
        self._slots = slots
        self._current: tuple[datetime, float] | None = None
        """When the lease began, and until when it is trusted, by this process's clock."""

    def epoch(self) -> datetime | None:
        """
        When the current lease began; None if it may have run out.

        If two calls return the same value, the lease held all the time between them. Then a claim that was made after
        the first call may be sent after the second.
        """
        current = self._current
        return current[0] if current and self._clock.monotonic() < current[1] else None

    def renew(self) -> None:
        """
        Prolong the lease.

        Raises:
            LedgerUnavailable: The lease is trusted until its half is over. Renewing again is safe.
        """
        asked_at = self._clock.monotonic()
        began_at = self._leases.renew(self._worker_id, self._lease_s, self._slots)
        if self._current and self._current[0] != began_at:
            log.warning("worker_lease.expired", worker_id=self._worker_id)
        self._current = (began_at, asked_at + self._lease_s * TRUSTED_SHARE)

    def release(self) -> None:
        """
        Give the lease back when nothing in this process sends any more. Its open attempts become due for others.

        Raises:
            LedgerUnavailable: It will run out by itself.
        """
        self._current = None
        self._leases.release(self._worker_id)
