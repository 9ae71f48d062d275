"""
Renews the lease of this process, in its own thread and over its own connection.

A busy event loop or an exhausted connection pool must not cost the lease: all calls in flight are lost with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from callgate.domain.errors import LedgerUnavailable
from callgate.services.lease import RENEW_AT_SHARE, LeaseService

log = structlog.get_logger(__name__)


class LeaseRenewer:
    """Renews a lease from `start` to `stop`."""

    def __init__(self, lease: LeaseService, *, lease_s: float, close: Callable[[], None]) -> None:
        """
        Prepare; no thread runs before `start`.

        Args:
            close: Called last; closes the connection, which only this thread uses.
        """
        self._lease = lease
        self._interval_s = lease_s * RENEW_AT_SHARE
        self._close = close
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Start the thread. This process claims no call before the first renewal has succeeded."""
        self._thread.start()

    def stop(self) -> None:
        """Release the lease, after the last request and record of this process; bounded by the ledger's timeout."""
        self._is_ending.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._is_ending.wait(pause_s):
            pause_s = (
                self._interval_s if self._has_succeeded(self._lease.renew) else self._interval_s / 5
            )
        self._has_succeeded(self._lease.release)
        self._close()

    def _has_succeeded(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except LedgerUnavailable as exc:
            log.warning("worker_lease.ledger_unavailable", reason=str(exc))
            return False
        except Exception:
            # Without this thread the process would never claim a call again: an unforeseen error must not end it.
            log.exception("worker_lease.renewal_failed")
            return False
        return True
