"""What the overview says: which figures are wrong, and what each links to. Pure rules over what was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from callgate.domain import metrics
from callgate.domain.alert_rules import AlertRules
from callgate.domain.calls import WaitReason
from callgate.domain.metric_ports import Figure
from callgate.domain.metrics import Metric
from callgate.domain.overview import Glance, ProviderHealth
from worker.flower.words import NANO, duration, number, usd

MEANINGS = {
    WaitReason.RETRY: "the last attempt failed; it is tried again",
    WaitReason.BUDGET_HELD: "calls in flight hold the money it needs",
    WaitReason.BUDGET_EXHAUSTED: "the period's money is spent",
    WaitReason.PROVIDER: "the breaker of its provider is open",
    WaitReason.QUARANTINE: "it may have killed a worker",
    WaitReason.MEMORY: "its request is large; no worker has room for it",
    WaitReason.RATE_LIMITED: "a limit of its provider is used, or its key is blocked",
    WaitReason.BACKLOG: "its organisation has many calls queued",
    WaitReason.PAUSED: "an operator has paused calls like it",
    WaitReason.CONCURRENCY_LIMITED: "as many calls of its organisation run as may",
    WaitReason.LOCKED: "another transaction had locked it",
}
SUCCESS_SHARE_MIN = 0.9
ENDED_MIN = 10
"""Attempts that must have ended before the share of successes says something."""


class Wrong(NamedTuple):
    """Something that an operator should look at."""

    text: str
    path: str
    query: str = ""
    is_severe: bool = True


class Waiting(NamedTuple):
    """Calls that wait for one reason."""

    reason: str
    meaning: str
    calls: int


@dataclass(frozen=True)
class Numbers:
    """The figures of the ledger by metric and labels."""

    values: dict[tuple[str, tuple[str, ...]], float]

    @classmethod
    def of(cls, figures: Iterable[Figure]) -> Numbers:
        """Index them."""
        return cls({(figure.name, figure.labels): figure.value for figure in figures})

    def one(self, metric: Metric, *labels: str) -> float:
        """One figure; 0 if it was not read."""
        return self.values.get((metric.name, labels), 0.0)

    def all(self, metric: Metric) -> Iterator[tuple[tuple[str, ...], float]]:
        """The labels and values of one metric."""
        return ((ls, value) for (name, ls), value in self.values.items() if name == metric.name)

    def named(self, metric: Metric) -> Iterator[tuple[dict[str, str], float]]:
        """The same, with the labels by name: a metric may get another label."""
        return (
            (dict(zip(metric.labels, ls, strict=False)), value) for ls, value in self.all(metric)
        )

    def sum(self, metric: Metric) -> float:
        """All values of a metric together."""
        return sum(value for _, value in self.all(metric))

    @property
    def waiting(self) -> list[Waiting]:
        """Waiting calls by reason, most first."""
        found = [
            Waiting(reason, MEANINGS[WaitReason(reason)], int(value))
            for (state, reason), value in self.all(metrics.CALLS)
            if state == "waiting" and value
        ]
        return sorted(found, key=lambda w: (-w.calls, w.reason))


def wrong_of(
    numbers: Numbers, glance: Glance, health: Iterable[ProviderHealth], rules: AlertRules
) -> list[Wrong]:
    """List what is wrong, the worst first. The thresholds are those of alerts, where an alert has one."""
    found = [
        *_of_workers(numbers),
        *_of_calls(numbers, glance, rules),
        *_of_providers(numbers, health),
        *_of_money(numbers, rules),
    ]
    return sorted(found, key=lambda wrong: not wrong.is_severe)


def _of_workers(n: Numbers) -> Iterator[Wrong]:
    if not n.one(metrics.LEASES, "live"):
        yield Wrong("No worker is alive.", "/leases")
    if expired := n.one(metrics.LEASES, "expired"):
        yield Wrong(f"Silent workers: {number(expired)}.", "/leases")
    parts = [labels[0] for labels, value in n.all(metrics.WORKER_VARIANTS) if value > 1]
    if parts:
        yield Wrong(f"Workers differ in: {', '.join(sorted(parts))}.", "/leases", is_severe=False)


def _of_calls(n: Numbers, glance: Glance, rules: AlertRules) -> Iterator[Wrong]:
    if glance.dead:
        calls = number(glance.dead, metrics.ROWS_MAX)
        is_severe = glance.dead >= rules.dead_letters_per_hour
        yield Wrong(
            f"Calls that died in the last hour: {calls}.", "/dead-letters", is_severe=is_severe
        )
    age_s = n.one(metrics.QUEUE_AGE)
    if age_s >= rules.queue_age_s:
        yield Wrong(
            f"A call has been queued for {duration(age_s)}.", "/calls", query="state:queued"
        )
    overdue_s = n.one(metrics.LINKS_OVERDUE)
    if overdue_s >= rules.queue_age_s:
        yield Wrong(f"A result has not been delivered for {duration(overdue_s)}.", "/dead-letters")
    lag_s = n.one(metrics.SETTLE_LAG)
    if lag_s >= rules.queue_age_s:
        yield Wrong(f"An answer has not been settled for {duration(lag_s)}.", "/calls")
    for kind, text in (("freeze", "Frozen organisations"), ("pause", "Pauses")):
        if count := n.one(metrics.PAUSES, kind):
            yield Wrong(f"{text}: {number(count)}.", "/limits", is_severe=False)


def _of_providers(n: Numbers, health: Iterable[ProviderHealth]) -> Iterator[Wrong]:
    for of, _ in n.named(metrics.OPEN_BREAKERS):
        whose = "" if of["calls_of"] == "all" else ", for an organisation"
        reason = of["reason"] or "no reason is known"
        yield Wrong(
            f"The breaker of {of['provider']}/{of['model']} is open{whose}: {reason}.", "/limits"
        )
    for of, count in n.named(metrics.BLOCKED_KEYS):
        yield Wrong(
            f"{of['provider']}/{of['model']} blocks keys for their rate: {number(count)}.",
            "/limits",
            is_severe=False,
        )
    for line in health:
        share = line.success_share
        if share is not None and line.ended >= ENDED_MIN and share < SUCCESS_SHARE_MIN:
            yield Wrong(
                f"Of the newest attempts at {line.provider}/{line.model} {100 * share:.0f} % succeeded.",
                "/calls",
                query=f"provider:{line.provider} model:{line.model}",
            )


def _of_money(n: Numbers, rules: AlertRules) -> Iterator[Wrong]:
    if full := n.one(metrics.BUDGETS, "100"):
        yield Wrong(f"Budgets that are used up: {number(full)}.", "/budgets")
    if nearly := n.one(metrics.BUDGETS, "80"):
        yield Wrong(
            f"Budgets of which 80 % are used: {number(nearly)}.", "/budgets", is_severe=False
        )
    unknown_usd = n.one(metrics.UNKNOWN_USD)
    if bills := n.one(metrics.UNKNOWN_BILLS):
        yield Wrong(
            f"Bills that nobody knows: {number(bills, metrics.ROWS_MAX)}, {usd(unknown_usd * NANO)}.",
            "/unknown",
            is_severe=unknown_usd >= rules.unknown_usd,
        )
    if drift := n.one(metrics.DRIFT, "held"):
        yield Wrong(f"Budgets differ from their rows by {usd(drift * NANO)}.", "/budgets")
