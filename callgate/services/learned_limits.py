"""
Remember the limits that providers name in their responses, and write what has changed.

A busy worker reads the same limits in every response, hundreds of times per second. The ledger is told of an amount
once, of what remains at once when that is little, and else every few seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from callgate.domain.flow_ports import FlowPort
from callgate.domain.limits import Learned, LearnedLimit, Measure
from callgate.domain.ports import ClockPort
from callgate.event_log import event_log

log = event_log(__name__)

LIMITS_MAX = 1_000
"""Bounds the memory; beyond it, what was not heard for the longest time is dropped."""
LOW_PERCENT = 5
"""If less than this part of the amount remains, that is written at once."""
REWRITE_AFTER_S = 10.0
"""How long what was written stays good enough, although something else remains by now."""

_Key = tuple[str, str, str, Measure, float]
"""Provider, model, credential, measure and window."""


@dataclass(frozen=True, slots=True)
class _Noted:
    """The newest limit of a key, and what the ledger has of it."""

    limit: LearnedLimit
    is_unwritten: bool = True
    written: LearnedLimit | None = None
    written_at: float = 0.0

    def is_due(self, now: float) -> bool:
        """True if the ledger should have it: a new amount, little remains, or the last write is long ago."""
        if not self.is_unwritten:
            return False
        if self.has_new_amount:
            return True
        has_become_low = _is_low(self.limit) and not _is_low(self.written)
        return has_become_low or now - self.written_at >= REWRITE_AFTER_S

    @property
    def has_new_amount(self) -> bool:
        """True if the ledger has no amount of it, or another one."""
        return self.written is None or self.written.amount != self.limit.amount


class LearnedLimits:
    """
    The newest limits of one process. Any thread may note; one at a time flushes.

    Args:
        lock: A lock for this object only. A process with one thread gives a context that does nothing.
    """

    def __init__(
        self, flow: FlowPort, clock: ClockPort, lock: AbstractContextManager[object]
    ) -> None:
        self._flow = flow
        self._clock = clock
        self._lock = lock
        self._noted: dict[_Key, _Noted] = {}
        """In the order in which they were last heard."""

    def note(
        self, provider: str, model: str, credential: str, limits: Iterable[LearnedLimit]
    ) -> None:
        """Keep the limits of one response. It does no I/O and does not raise."""
        with self._lock:
            for limit in limits:
                key = (provider, model, credential, limit.measure, limit.window_s)
                known = self._noted.pop(key, None)
                self._noted[key] = (
                    replace(known, limit=limit, is_unwritten=True) if known else _Noted(limit)
                )
            while len(self._noted) > LIMITS_MAX:
                del self._noted[next(iter(self._noted))]

    def flush(self) -> None:
        """
        Write what has changed since the last flush, if anything has.

        Raises:
            LedgerUnavailable: Nothing is forgotten; the next flush writes it.
        """
        now = self._clock.monotonic()
        with self._lock:
            due = {key: noted for key, noted in self._noted.items() if noted.is_due(now)}
        if not due:
            return
        self._flow.learn([Learned(*key[:3], noted.limit) for key, noted in due.items()])
        with self._lock:
            for key, noted in due.items():
                # It may have been heard again, or dropped, meanwhile.
                if newest := self._noted.get(key):
                    self._noted[key] = replace(
                        newest,
                        is_unwritten=newest is not noted,
                        written=noted.limit,
                        written_at=now,
                    )
        for key, noted in due.items():
            if noted.has_new_amount:
                _log_learned(key, noted.limit.amount)


def _is_low(limit: LearnedLimit | None) -> bool:
    """True if less than `LOW_PERCENT` of the amount remains."""
    if limit is None or limit.remaining is None:
        return False
    return limit.remaining * 100 < limit.amount * LOW_PERCENT


def _log_learned(key: _Key, amount: int) -> None:
    provider, model, credential, measure, window_s = key
    log.info(
        "limit.learned",
        provider=provider,
        model=model,
        credential=credential,
        measure=measure.value,
        window_s=window_s,
        amount=amount,
    )
