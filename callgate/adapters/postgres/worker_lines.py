"""What operators see of workers, in Postgres: `WorkersPort`."""

from __future__ import annotations

from typing import Any

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import QUARANTINE_SWEEPS, CallKey
from callgate.domain.fingerprints import Fingerprint
from callgate.domain.metrics import ROWS_MAX
from callgate.domain.worker_lines import (
    PARTS,
    QUARANTINED_MAX,
    OpenLine,
    QuarantinedCall,
    WorkerLine,
)

WORKERS = "SELECT * FROM callgate_worker_lines_v1()"
OPEN = "SELECT * FROM callgate_open_lines_v1(%(rows_max)s)"
QUARANTINED = "SELECT * FROM callgate_quarantined_v1(%(sweeps)s, %(limit)s)"


class PostgresWorkers:
    """`WorkersPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def worker_lines(self) -> list[WorkerLine]:
        """List worker processes; see `WorkersPort.worker_lines`."""
        return [_worker(row) for row in self._session.answers(WORKERS, {})]

    def open_lines(self) -> list[OpenLine]:
        """Count open calls; see `WorkersPort.open_lines`."""
        rows = self._session.answers(OPEN, {"rows_max": ROWS_MAX})
        return [OpenLine(**row._asdict()) for row in rows]

    def quarantined(self, *, limit: int = QUARANTINED_MAX) -> list[QuarantinedCall]:
        """List calls that may have killed a worker; see `WorkersPort.quarantined`."""
        rows = self._session.answers(QUARANTINED, {"sweeps": QUARANTINE_SWEEPS, "limit": limit})
        return [_quarantined(row) for row in rows]


def _worker(row: Any) -> WorkerLine:
    fields = row._asdict()
    parts = [fields.pop(name) for name in PARTS]
    return WorkerLine(**fields, fingerprint=None if parts[0] is None else Fingerprint(*parts))


def _quarantined(row: Any) -> QuarantinedCall:
    fields = row._asdict()
    return QuarantinedCall(key=CallKey(fields.pop("call_id"), fields.pop("generation")), **fields)
