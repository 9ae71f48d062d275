"""What the limits of a key have left for the calls that wait for it, in the memory ledger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from callgate.adapters.memory import limits
from callgate.adapters.memory.rows import GuardKey
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.limits import Limit, Measure, Need, Source


@dataclass(frozen=True, slots=True)
class LimitHeadroom:
    """The limits of one key, and how many more attempts may be under way. A hint, not an admission."""

    timed: tuple[Limit, ...]
    slots: float
    concurrency: int | None
    """The least limit on attempts under way."""
    now: datetime

    @classmethod
    def of(cls, tables: MemoryTables, key: GuardKey, now: datetime) -> LimitHeadroom:
        """What a key offers now."""
        is_blocked = tables.breakers[*key, ""].is_open
        known = limits.current(tables, key, now)
        known = [x for x in known if not (is_blocked and x.source is Source.OBSERVED)]
        slots, least = math.inf, None
        for limit in known:
            if limit.measure is Measure.CONCURRENCY:
                slots = min(slots, limit.amount - limits.in_flight(tables, limit))
                least = min(least or limit.amount, limit.amount)
        most = tables.breakers[*key, ""].in_flight_max
        is_cautious = key[0] in tables.declaration.cautious
        if (
            is_cautious
            and most is not None
            and all(limit.source is Source.OBSERVED for limit in known)
        ):
            slots = min(slots, most - limits.count_in_flight(tables, key))
        return cls(tuple(x for x in known if x.window_s), slots, least, now)

    def part(self, need: Need) -> float:
        """The largest part of a limit that an attempt takes; 0 without limits."""
        parts = [need.of(limit.measure) / limit.amount for limit in self.timed]
        return max([0.0, *parts, *([1 / self.concurrency] if self.concurrency else [])])

    def fitting(self, line: Sequence[Need], released: Sequence[Need]) -> int:
        """
        How many calls at the head of a line fit, behind those that are released already.

        The first one that does not fit stops those behind it. The first of all passes also if its claim makes room for
        it: it is larger than the capacity of a limit, or takes more than half of one that was long unused.
        """
        taken = [sum(need.of(limit.measure) for need in released) for limit in self.timed]
        if self._has_no_request(len(released)):
            return 0
        for n, need in enumerate(line):
            taken = [t + need.of(x.measure) for t, x in zip(taken, self.timed, strict=True)]
            fits = all(t <= x.level for t, x in zip(taken, self.timed, strict=True))
            makes_room = n == 0 and any(self._makes_room(need, x) for x in self.timed)
            has_request = not self._has_no_request(len(released) + n)
            if not has_request or not (fits or makes_room):
                return n
        return len(line)

    def _has_no_request(self, used: int) -> bool:
        requests = [x for x in self.timed if x.measure is Measure.REQUESTS]
        left = [1.0 if x.amount == 1 and x.was_unused(self.now) else x.level for x in requests]
        return min([self.slots, *left]) < used + 1

    def _makes_room(self, need: Need, limit: Limit) -> bool:
        units, half = need.of(limit.measure), limit.amount / 2
        if limit.measure is Measure.REQUESTS:
            return limit.amount == 1
        return min(units, half) > limit.capacity or (units > half and limit.was_unused(self.now))
