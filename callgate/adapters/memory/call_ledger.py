"""The memory ledger for single items, as a worker uses it."""

from __future__ import annotations

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.ledger import RecordAnswer, RecordOutcome, ReserveCommand, ReserveOutcome


class MemoryCallLedger:
    """`CallLedger` over the memory ledger."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def read(self, key: CallKey) -> CallView | None:
        """Look at one call."""
        return self._ledger.read([key], Bodies.LIGHT)[0]

    async def read_whole(self, key: CallKey) -> CallView | None:
        """Look at one call, however large."""
        return self._ledger.read([key], Bodies.REQUEST)[0]

    async def read_answer(self, ref: AttemptRef) -> CallView | None:
        """Look at one attempt's reply."""
        return self._ledger.read([ref], Bodies.REPLY)[0]

    async def reserve(self, command: ReserveCommand) -> ReserveOutcome:
        """Claim, reject or defer it."""
        return self._ledger.reserve([command])[0]

    async def record(self, record: RecordAnswer) -> RecordOutcome:
        """Keep its answer."""
        return self._ledger.record([record])[0]
