"""The connections of a worker process to Postgres."""

from __future__ import annotations

from dataclasses import dataclass

from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.version import VERSION, major_version
from callgate.domain.ports import LedgerPort
from callgate.services.lease import RENEW_AT_SHARE
from config.settings import WorkerSettings

MAINTENANCE_TIMEOUT_S = 120.0
"""What summing one month of the log may take; a worker that stops meanwhile waits for it."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """The process's connections to Postgres, by their limits of time."""

    calls: PostgresSession
    """
    As many connections as the executor `ledger` has threads.

    The executor `settle` has as many again: a thread may wait for a connection, at most `ledger_timeout_s`.
    """
    maintenance: PostgresSession
    lease: PostgresSession
    """One connection, with a timeout that leaves time for another try. Its `LeaseRenewer` closes it."""
    lock_watch: PostgresSession
    """Two connections: the next transaction begins before the last one ends. Its `LockWatch` closes it."""

    @classmethod
    def of(cls, settings: WorkerSettings) -> Sessions:
        options, url = settings.worker, settings.database_url.get_secret_value()
        lease_timeout_s = options.process_lease_s * RENEW_AT_SHARE
        return cls(
            calls=PostgresSession(
                url,
                timeout_s=settings.ledger_timeout_s,
                pool_size=options.ledger_connections_max,
                checks_schema=True,
            ),
            maintenance=PostgresSession(url, timeout_s=MAINTENANCE_TIMEOUT_S, pool_size=1),
            lease=PostgresSession(url, timeout_s=lease_timeout_s, pool_size=1),
            lock_watch=PostgresSession(url, timeout_s=settings.ledger_timeout_s, pool_size=2),
        )

    def check(self, ledger: LedgerPort) -> None:
        """See `Runtime.check`."""
        # Not over `calls`: on a server that is too old there is no ledger, and that would be said.
        ((number,),) = self.maintenance.rows(VERSION, {})
        major_version(number)
        ledger.take_due(limit=0)

    def close(self) -> None:
        self.calls.close()
        self.maintenance.close()
