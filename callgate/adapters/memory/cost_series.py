"""Costs over time, out of the sums of the memory ledger: `CostSeriesPort`."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from callgate.adapters.memory.sums import cost_lines, entries
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.cost_series import TOP_MAX, Grid, SeriesPoint
from callgate.domain.sums import NOTHING, CostFilter, CostLine, Measures, day_of


class MemoryCostSeries:
    """`CostSeriesPort` over the tables of the memory ledger."""

    def __init__(self, tables: MemoryTables, lock: threading.Lock) -> None:
        self._tables = tables
        self._lock = lock

    def cost_lines(self, which: CostFilter, by: Sequence[str], *, limit: int) -> list[CostLine]:
        """Sum by dimensions."""
        with self._lock:
            lines = cost_lines(self._tables, which, by)
        return sorted(lines, key=lambda line: -line.used.posted_nano_usd)[:limit]

    def cost_series(
        self, which: CostFilter, grid: Grid, by: str, *, top_max: int = TOP_MAX
    ) -> list[SeriesPoint]:
        """Sum by step and value."""
        if grid.is_of_days and which.since:
            which = replace(which, since=day_of(which.since))
        with self._lock:
            found = entries(self._tables, which)
        totals: defaultdict[str, int] = defaultdict(int)
        for entry in found:
            totals[getattr(entry.key, by) or ""] += entry.measures.posted_nano_usd
        ranked = sorted(totals, key=lambda name: (-totals[name], name))
        place = {name: min(number, top_max) for number, name in enumerate(ranked)}
        used: defaultdict[tuple[object, int], Measures] = defaultdict(lambda: NOTHING)
        for entry in found:
            step = grid.start_of(entry.starts_at), place[getattr(entry.key, by) or ""]
            used[step] += entry.measures
        points = [
            SeriesPoint(
                starts_at,  # type: ignore[arg-type]
                ranked[number] if number < top_max else None,
                measures.posted_nano_usd,
                measures.saved_nano_usd,
                measures.attempts,
            )
            for (starts_at, number), measures in sorted(used.items(), key=lambda item: str(item[0]))
        ]
        return [p for p in points if p.posted_nano_usd or p.saved_nano_usd or p.attempts]
