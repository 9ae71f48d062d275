"""`BudgetCachePort` in memory, for one process."""

from __future__ import annotations

import time
from collections.abc import Callable

from callgate.domain.budgets import BudgetFigures

ORGS_MAX = 10_000


class MemoryBudgetCache:
    """Keeps the figures of at most `ORGS_MAX` organisations for `ttl_s` seconds each."""

    def __init__(self, *, ttl_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._monotonic = monotonic
        self._kept: dict[str, tuple[float, list[BudgetFigures]]] = {}

    def get(self, org_id: str, load: Callable[[str], list[BudgetFigures]]) -> list[BudgetFigures]:
        """The figures of an organisation; see `BudgetCachePort.get`."""
        now = self._monotonic()
        expires_at, figures = self._kept.get(org_id, (now, []))
        if expires_at > now:
            return list(figures)
        figures = load(org_id)
        if len(self._kept) >= ORGS_MAX:
            self._kept.clear()
        self._kept[org_id] = (now + self._ttl_s, figures)
        return list(figures)

    def close(self) -> None:
        """Forget the figures."""
        self._kept.clear()
