"""The leases of worker processes in Postgres: each method is one statement."""

from __future__ import annotations

from datetime import datetime

from callgate.adapters.postgres.session import PostgresSession

EXPIRED_MAX = 10
"""Leases released by one statement: each brings the calls of a whole process along."""

RENEW = "SELECT callgate_renew_lease_v2(%(worker_id)s, %(lease_s)s, %(slots)s) AS began_at"
RELEASE = "SELECT callgate_release_leases_v1(ARRAY[%(worker_id)s])"
EXPIRE = "SELECT callgate_expire_leases_v2(%(reaper)s, %(limit)s) AS worker_id"


class PostgresLeases:
    """`LeasePort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def renew(self, worker_id: str, lease_s: float, slots: int | None = None) -> datetime:
        """Grant or prolong a lease; see `LeasePort.renew`."""
        what = {"worker_id": worker_id, "lease_s": lease_s, "slots": slots}
        (row,) = self._session.answers(RENEW, what)
        began_at: datetime = row.began_at
        return began_at

    def release(self, worker_id: str) -> None:
        """End a lease; see `LeasePort.release`."""
        self._session.answers(RELEASE, {"worker_id": worker_id})

    def expire(self, reaper: str) -> list[str]:
        """Release expired leases; see `LeasePort.expire`."""
        rows = self._session.answers(EXPIRE, {"reaper": reaper, "limit": EXPIRED_MAX})
        return [row.worker_id for row in rows]
