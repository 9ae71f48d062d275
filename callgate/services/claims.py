"""
Claims of calls, and the permits to send that come with them.

An attempt ends with its deadline. The clock is read before the claim is made, so the process stops before the ledger
takes the attempt as expired. No two machines' clocks are compared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import Reserve, ReserveOutcome
from callgate.domain.ports import ClockPort
from callgate.services.retrying_ledger import RetryingLedger


@dataclass(frozen=True, slots=True)
class SendPermit:
    """Until when, and under which lease, the one request of an attempt may be sent."""

    deadline: float
    """By this process's monotonic clock."""
    lease_epoch: object


@dataclass(frozen=True, slots=True)
class Claimant:
    """The process that claims calls."""

    worker_id: str
    """Names it in the ledger."""
    lease_epoch: Callable[[], object | None]
    """See `LeaseService.epoch`."""


class Claims:
    """Claims calls for one process. Each claim has an id of its own, and makes one attempt at most."""

    def __init__(self, ledger: RetryingLedger, *, claimant: Claimant, clock: ClockPort) -> None:
        self._ledger = ledger
        self._claimant = claimant
        self._clock = clock
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        """The id of the next claim: the process and a number."""
        return f"{self._claimant.worker_id}/{next(self._numbers)}"

    async def claim(self, reserve: Reserve, deadline_s: float) -> tuple[ReserveOutcome, SendPermit]:
        """
        Claim a call, and say until when and under which lease its request may be sent.

        A try without an answer may have made the claim, or may still make it. Only the ledger knows, so this waits for
        the ledger: giving up would make the attempt unknown because of an outage alone. A locked call is tried again
        for the same reason, as long as an earlier try may have made an attempt that this process could still send.

        The deadline counts from before the last try. The lease is that of the first try: an earlier, unanswered claim
        may have been given away before the next try, and the next try cannot see that.
        """
        lease_epoch = await self._ledger.retry_while_unavailable(self._require_lease)
        begun = maybe_made_until = 0.0

        async def reserve_once() -> ReserveOutcome:
            nonlocal begun, maybe_made_until
            await self._require_lease()
            begun = self._clock.monotonic()
            try:
                return await self._ledger.reserve_once(reserve)
            except LedgerUnavailable:
                maybe_made_until = begun + reserve.expires_in_s
                raise

        outcome = await self._ledger.past_locks(
            reserve.key,
            lambda: self._ledger.retry_while_unavailable(reserve_once, math.inf),
            lambda: maybe_made_until,
        )
        return outcome, SendPermit(begun + deadline_s, lease_epoch)

    async def _require_lease(self) -> object:
        """A process without a lease claims nothing."""
        if (epoch := self._claimant.lease_epoch()) is None:
            raise LedgerUnavailable("this process's lease may have run out")
        return epoch
