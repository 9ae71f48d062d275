"""
Keeps the lease of this process alive, in a thread of its own.

Neither a busy event loop nor a pool without a free connection must cost the lease: with it go all calls in flight.
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
            close: Called at the very end, to close the connection that only the keeper uses.
        """
        self._lease = lease
        self._interval_s = lease_s * RENEW_AT_SHARE
        self._close = close
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Begin. Until the first renewal has come through, this process claims nothing."""
        self._thread.start()

    def stop(self) -> None:
        """Release the lease; nothing in this process may send or record any more. Bounded by the ledger's timeout."""
        self._is_ending.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._is_ending.wait(pause_s):
            pause_s = self._interval_s if self._did(self._lease.renew) else self._interval_s / 5
        self._did(self._lease.release)
        self._close()

    def _did(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except LedgerUnavailable as exc:
            log.warning("worker_lease.ledger_unavailable", reason=str(exc))
            return False
        except Exception:
            # Without this thread the process would never claim again: an unforeseen error must not end it.
            log.exception("worker_lease.renewal_failed")
            return False
        return True
