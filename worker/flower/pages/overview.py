"""`/overview`: is anything wrong?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from callgate.domain import metrics
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.metric_ports import LedgerFigures
from callgate.domain.overview import Glance, ProviderHealth
from callgate.domain.sums import CostFilter, CostLine, day_of
from worker.flower.glance import Numbers, wrong_of
from worker.flower.page import LIVE_EVERY_S, Page
from worker.flower.source import Ledger

HOUR_S = 3_600.0
HEALTH_S = 900.0
ATTEMPTS_MAX = 2_000
"""The newest attempts that say how providers are."""
SHARED_S = 3.0
"""Pages that are opened within so many seconds show the same reading."""


@dataclass(frozen=True)
class Seen:
    """One reading for the page."""

    figures: LedgerFigures
    glance: Glance
    health: list[ProviderHealth]
    today: CostLine | None
    since: datetime


def look(ledger: Ledger, orgs_max: int) -> Seen:
    """Read everything; the figures as `/metrics` shows them, at most a few seconds old."""
    glance = ledger.overview.glance(dead_s=HOUR_S, rows_max=metrics.ROWS_MAX)
    try:
        figures = ledger.figures.read_figures(interval_s=LIVE_EVERY_S, orgs_max=orgs_max)
    except LedgerUnavailable:
        # Another process reads the first figures ever. Then this one reads its own.
        found = ledger.figures.current_figures(orgs_max=orgs_max)
        figures = LedgerFigures(glance.at, 0.0, found)
    health = ledger.overview.provider_health(age_s=HEALTH_S, attempts_max=ATTEMPTS_MAX)
    since = day_of(glance.at)
    today = ledger.operations.costs(CostFilter(since=since), by=())
    return Seen(figures, glance, health, today[0] if today else None, since)


class Overview(Page):
    """The figures of the whole ledger, each with a link to its list."""

    path, name, title = "/overview", "overview", "Overview"

    async def get(self) -> None:
        """Show the figures."""
        orgs_max = self.application.metrics_orgs_max
        seen: Seen = await self.application.source.read_shared(
            self.name, SHARED_S, lambda ledger: look(ledger, orgs_max)
        )
        numbers = Numbers.of(seen.figures.figures)
        wrong = wrong_of(numbers, seen.glance, seen.health, self.application.alert_rules)
        self.show(
            "overview.html", seen=seen, n=numbers, m=metrics, wrong=wrong, keys=_keys(numbers)
        )


def _keys(numbers: Numbers) -> dict[tuple[str, str], dict[str, Any]]:
    """What is known of the keys of each provider and model: the fullest limit, blocked keys, open breakers."""
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def of(labels: dict[str, str]) -> dict[str, Any]:
        name = (labels["provider"], labels["model"])
        return found.setdefault(name, {"used": None, "blocked": 0, "breakers": []})

    for labels, share in numbers.named(metrics.LIMIT_USED):
        line = of(labels)
        if line["used"] is None or share > line["used"][0]:
            line["used"] = (share, labels["measure"], labels["window_s"])
    for labels, count in numbers.named(metrics.BLOCKED_KEYS):
        of(labels)["blocked"] += int(count)
    for labels, _ in numbers.named(metrics.OPEN_BREAKERS):
        of(labels)["breakers"].append(f"{labels['reason']} ({labels['calls_of']})")
    return found
