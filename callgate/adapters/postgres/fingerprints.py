"""The fingerprints of worker processes in Postgres: columns of their leases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.fingerprints import NO_SECTIONS, ExpiredLease, Fingerprint, LiveWorker

PUBLISH = """SELECT callgate_publish_fingerprint_v1(
    %(worker_id)s, %(version)s, %(schema_revision)s, %(settings)s, %(catalogue)s, %(sections)s::jsonb)"""
WORKERS = "SELECT * FROM callgate_workers_v1()"

EXPIRED = "SELECT * FROM callgate_expired_leases_v1()"


class PostgresFingerprints:
    """`FingerprintPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def publish(
        self, worker_id: str, fingerprint: Fingerprint, sections: Mapping[str, str] = NO_SECTIONS
    ) -> None:
        """Keep it with the lease; see `FingerprintPort.publish`."""
        made_of = {**asdict(fingerprint), "sections": json.dumps(dict(sections))}
        self._session.answers(PUBLISH, {"worker_id": worker_id, **made_of})

    def workers(self) -> list[LiveWorker]:
        """List live workers; see `FingerprintPort.workers`."""
        return [_worker(row) for row in self._session.answers(WORKERS, {})]

    def expired(self) -> list[ExpiredLease]:
        """List expired leases; see `FingerprintPort.expired`."""
        return [ExpiredLease(*row) for row in self._session.answers(EXPIRED, {})]


def _worker(row: Any) -> LiveWorker:
    if row.version is None:
        return LiveWorker(row.worker_id, row.began_at, None)
    fingerprint = Fingerprint(row.version, row.schema_revision, row.settings, row.catalogue)
    return LiveWorker(row.worker_id, row.began_at, fingerprint, dict(row.sections or {}))
