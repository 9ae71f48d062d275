"""The ledger as one call sees it, with every statement repeated through outages and locks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from callgate.domain import metrics
from callgate.domain.calls import AttemptRef, CallKey, CallState, CallView
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import (
    Locked,
    RecordAnswer,
    RecordOutcome,
    Refused,
    ReserveCommand,
    ReserveOutcome,
)
from callgate.domain.metric_ports import NO_METER, Meter
from callgate.domain.metrics import Metric
from callgate.domain.ports import ClockPort
from callgate.event_log import event_log

T = TypeVar("T")
log = event_log(__name__)

LOCKED_PAUSES_S = (0.01, 0.03, 0.1, 0.2)
"""Between two tries to claim a locked call. The lock is mostly a submission's that is just joining."""


class CallLedger(Protocol):
    """The ledger for single items. Its adapter groups them into batches."""

    async def read(self, key: CallKey) -> CallView | None:
        """Read one call; its request only if that is small."""

    async def read_whole(self, key: CallKey) -> CallView | None:
        """Read one call with its request, however large."""

    async def read_answer(self, ref: AttemptRef) -> CallView | None:
        """Read one call with the reply of one of its attempts, and without its request."""

    async def reserve(self, command: ReserveCommand) -> ReserveOutcome:
        """Claim, reject or defer one call."""

    async def record(self, record: RecordAnswer) -> RecordOutcome:
        """Keep one answer."""


@dataclass(frozen=True, slots=True)
class OutagePolicy:
    """How a process behaves while the ledger is unavailable."""

    grace_s: float
    """Between an attempt's deadline and its expiry. The back-off of a record stays below it."""
    give_up_after_s: float = 600.0
    """After an outage of this length, calls that this process has not tried to claim are left to a sweep."""

    def backoff_s(self, failures: int, jitter: float) -> float:
        """Seconds before the next try: full jitter, at most a third of the grace."""
        return jitter * min(self.grace_s / 3, 0.05 * 2.0 ** min(failures, 16))


@dataclass(frozen=True, slots=True)
class LedgerAccess:
    """The ledger of a process, and what the process does while it does not answer, or a call stays locked."""

    ledger: CallLedger
    outages: OutagePolicy
    on_locked: Callable[[CallKey], None] = lambda _: None
    """Called with a call that stayed locked through all tries."""


class RetryingLedger:
    """Repeats statements until the ledger answers, or for as long as the policy allows."""

    def __init__(self, access: LedgerAccess, *, clock: ClockPort, meter: Meter = NO_METER) -> None:
        self._meter = meter
        self._ledger = access.ledger
        self._outages = access.outages
        self._on_locked = access.on_locked
        self._clock = clock

    async def read(self, key: CallKey) -> CallView | None:
        """Read one call; its request only if that is small."""
        return await self.retry_while_unavailable(lambda: self._ledger.read(key))

    async def read_whole(self, key: CallKey) -> CallView | None:
        """Read one call with its request, however large."""
        return await self.retry_while_unavailable(lambda: self._ledger.read_whole(key))

    async def read_answer(self, ref: AttemptRef) -> CallView | None:
        """Read one call with the reply of one of its attempts, and without its request."""
        return await self.retry_while_unavailable(lambda: self._ledger.read_answer(ref))

    async def reserve_once(self, command: ReserveCommand) -> ReserveOutcome:
        """Try once."""
        outcome = await self._timed(metrics.RESERVE_LATENCY, self._ledger.reserve(command))
        if isinstance(outcome, Refused) and outcome.state is CallState.REJECTED:
            self._meter.count(metrics.CALLS_ENDED, outcome.state.value, outcome.code)
        return outcome

    async def reserve(self, command: ReserveCommand) -> ReserveOutcome:
        """Repeat a command for which nothing is ever sent."""
        return await self.past_locks(
            command.key,
            lambda: self.retry_while_unavailable(lambda: self.reserve_once(command)),
        )

    async def record(self, record: RecordAnswer) -> RecordOutcome:
        """Keep an answer, however long the outage: it is paid for."""
        for failures in itertools.count():
            try:
                return await self._timed(metrics.RECORD_LATENCY, self._ledger.record(record))
            except LedgerUnavailable as exc:
                log.warning(
                    "answer.deferred",
                    call_id=str(record.ref.key.call_id),
                    attempt_id=str(record.ref.attempt_id),
                    reason=str(exc),
                )
                await self._back_off(failures)
        raise AssertionError("unreachable")

    async def retry_while_unavailable(
        self, step: Callable[[], Awaitable[T]], give_up_after_s: float | None = None
    ) -> T:
        """
        Repeat a step until the ledger answers.

        Raises:
            LedgerUnavailable: It did not within `give_up_after_s` seconds (the policy's if not given).
        """
        if give_up_after_s is None:
            give_up_after_s = self._outages.give_up_after_s
        give_up_at = self._clock.monotonic() + give_up_after_s
        for failures in itertools.count():
            try:
                return await step()
            except LedgerUnavailable:
                if self._clock.monotonic() > give_up_at:
                    raise
                await self._back_off(failures)
        raise AssertionError("unreachable")

    async def past_locks(
        self,
        key: CallKey,
        reserve: Callable[[], Awaitable[ReserveOutcome]],
        until: Callable[[], float] = lambda: -math.inf,
    ) -> ReserveOutcome:
        """Repeat a command on a locked call: a few times, and then until a moment of this process's clock."""
        pauses = iter(LOCKED_PAUSES_S)
        while isinstance(outcome := await reserve(), Locked):
            pause_s = next(pauses, None)
            if pause_s is None and self._clock.monotonic() >= until():
                self._on_locked(key)
                break
            await self._clock.sleep(pause_s or LOCKED_PAUSES_S[-1])
        return outcome

    async def _timed(self, metric: Metric, step: Awaitable[T]) -> T:
        began = self._clock.monotonic()
        try:
            return await step
        finally:
            self._meter.observe(metric, self._clock.monotonic() - began)

    async def _back_off(self, failures: int) -> None:
        await self._clock.sleep(self._outages.backoff_s(failures, self._clock.jitter()))
