"""The memory ledger as a client sees it: it may not answer, as Postgres may not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.delivery import Delivery, LinkOutcome
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import (
    DueBatch,
    NewSubmission,
    Reaper,
    RecordAnswer,
    RecordOutcome,
    ReserveCommand,
    ReserveOutcome,
    Settle,
    SettleOutcome,
    Submitted,
)


class InterruptedLedger:
    """`LedgerPort` over another. Of `submit` and `read`, the next `outages` are not answered."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger
        self.outages = 0

    def submit(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """Store submissions."""
        self._ask()
        return self._ledger.submit(batch)

    def read(
        self, keys: Sequence[CallKey | AttemptRef], bodies: Bodies = Bodies.NONE
    ) -> list[CallView | None]:
        """Look at calls."""
        self._ask()
        return self._ledger.read(keys, bodies)

    def reserve(self, batch: Sequence[ReserveCommand]) -> list[ReserveOutcome]:
        """Decide queued calls."""
        return self._ledger.reserve(batch)

    def record(self, batch: Sequence[RecordAnswer]) -> list[RecordOutcome]:
        """Keep answers."""
        return self._ledger.record(batch)

    def settle(self, batch: Sequence[Settle]) -> list[SettleOutcome]:
        """Post attempts."""
        return self._ledger.settle(batch)

    def take_due(self, *, limit: int, reaper: Reaper | None = None) -> DueBatch:
        """Take due calls."""
        return self._ledger.take_due(limit=limit, reaper=reaper)

    def take_lost_messages(self, *, limit: int, queued_before: datetime) -> DueBatch:
        """Take calls whose message was lost."""
        return self._ledger.take_lost_messages(limit=limit, queued_before=queued_before)

    def links(
        self, *, limit: int, after: str = "", keys: Sequence[CallKey] | None = None
    ) -> list[Delivery]:
        """Take links of ended calls."""
        return self._ledger.links(limit=limit, after=after, keys=keys)

    def keep_link_outcomes(self, outcomes: Sequence[LinkOutcome]) -> None:
        """Keep what became of links."""
        self._ledger.keep_link_outcomes(outcomes)

    def _ask(self) -> None:
        if self.outages > 0:
            self.outages -= 1
            raise LedgerUnavailable("the test has interrupted the ledger")
