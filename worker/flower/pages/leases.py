"""`/leases`: which worker processes live, what they are made of and do, what is open, and what is in quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from callgate.domain.metrics import ROWS_MAX
from callgate.domain.worker_lines import (
    PARTS,
    OpenLine,
    QuarantinedCall,
    WorkerLine,
    odd_parts,
    usual_parts,
)
from worker.flower import words
from worker.flower.page import Page
from worker.flower.source import Ledger

PART_TITLES = {
    "version": "Version",
    "schema_revision": "Schema",
    "settings": "Settings",
    "catalogue": "Catalogue",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page shows, read at about one moment."""

    workers: list[WorkerLine]
    open: list[OpenLine]
    quarantined: list[QuarantinedCall]

    @property
    def live(self) -> list[WorkerLine]:
        """Workers whose lease has not expired."""
        return [worker for worker in self.workers if worker.is_live]

    @property
    def slots(self) -> int:
        """How many calls all live workers run at a time, as far as they say it."""
        return sum(worker.slots or 0 for worker in self.live)

    @property
    def in_flight(self) -> int:
        """Attempts of all workers that are not posted."""
        return sum(worker.in_flight for worker in self.workers)

    def calls(self, state: str) -> int:
        """Open calls in one state."""
        return sum(line.calls for line in self.open if line.state == state)

    @property
    def variants(self) -> dict[str, int]:
        """How many different values each part has."""
        return {part: len(_values(self.live, part)) for part in PARTS}


class Leases(Page):
    """The workers by their leases in the ledger, never by Celery's events."""

    path, name, title = "/leases", "leases", "Workers"

    async def get(self) -> None:
        """Show them."""

        def read(ledger: Ledger) -> Shown:
            port = ledger.workers
            return Shown(port.worker_lines(), port.open_lines(), port.quarantined())

        seen = await self.read(read)
        usual = usual_parts(seen.workers)
        self.show(
            "leases.html",
            seen=seen,
            usual=usual,
            odd=lambda worker: odd_parts(worker, usual),
            parts=PART_TITLES,
            counted_max=ROWS_MAX,
            asked_at=words.now(),
        )


def _values(workers: Sequence[WorkerLine], part: str) -> set[str]:
    return {getattr(w.fingerprint, part) for w in workers if w.fingerprint}
