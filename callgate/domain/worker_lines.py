"""What operators see of worker processes: their leases, what they are made of and do, and what differs between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Protocol

from callgate.domain.calls import CallKey
from callgate.domain.fingerprints import Fingerprint

PARTS = tuple(field.name for field in fields(Fingerprint))
"""What workers of one ledger should have in common."""
WORKERS_MAX = 1_000
QUARANTINED_MAX = 100


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """One worker process by its lease."""

    worker_id: str
    began_at: datetime
    silent_s: float
    """Since its last renewal, by the ledger's clock."""
    is_live: bool
    """False: it froze, was killed, or cannot reach the ledger."""
    slots: int | None
    """How many calls it runs at a time; None: it does not say."""
    in_flight: int
    """Its attempts that are not posted."""
    fingerprint: Fingerprint | None
    """None: it publishes none, like those of callgate 0.1."""

    @property
    def host(self) -> str:
        """The first part of its id."""
        return self.worker_id.partition(":")[0]


@dataclass(frozen=True, slots=True)
class OpenLine:
    """Open calls of one kind."""

    state: str
    wait_reason: str
    """Empty: it does not wait."""
    lane: str
    """Of queued calls where they were published; empty otherwise."""
    calls: int
    oldest_at: datetime
    """When the oldest one was submitted."""


@dataclass(frozen=True, slots=True)
class QuarantinedCall:
    """An open call that may have killed a worker, and so runs in a process of its own."""

    key: CallKey
    org_id: str
    call_type: str
    provider: str
    model: str
    state: str
    wait_reason: str
    attempts: int
    worker_losses: int
    sweeps: int
    """How many sweeps found it unclaimed."""
    created_at: datetime
    due_at: datetime | None


class WorkersPort(Protocol):
    """What operators ask about workers. `LedgerUnavailable` as in `callgate.domain.ports`."""

    def worker_lines(self) -> list[WorkerLine]:
        """List the worker processes that have a lease, a thousand at most, live ones first, by id."""

    def open_lines(self) -> list[OpenLine]:
        """
        Count open calls by state, wait reason and lane.

        Counted are the first 20,000 of the queued ones, and as many of the others, those that are due first.
        """

    def quarantined(self, *, limit: int = QUARANTINED_MAX) -> list[QuarantinedCall]:
        """List open calls that may have killed a worker, oldest first."""


def usual_parts(workers: Sequence[WorkerLine]) -> dict[str, str]:
    """What most live workers are made of, part by part. Of several that are as frequent the largest text counts."""
    found = {}
    for part in PARTS:
        values = Counter(
            getattr(w.fingerprint, part) for w in workers if w.is_live and w.fingerprint
        )
        if values:
            found[part] = max(values, key=lambda value: (values[value], value))
    return found


def odd_parts(worker: WorkerLine, usual: Mapping[str, str]) -> tuple[str, ...]:
    """The parts in which a live worker differs from most; `version` also if it publishes nothing and others do."""
    if not worker.is_live or not usual:
        return ()
    if worker.fingerprint is None:
        return ("version",)
    return tuple(p for p in PARTS if getattr(worker.fingerprint, p) != usual.get(p))
