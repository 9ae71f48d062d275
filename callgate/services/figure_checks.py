"""Checks of the figures of the ledger: what waits, what is spent, what is not settled or told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

from callgate.domain import metrics
from callgate.domain.calls import CallState, WaitReason
from callgate.domain.metric_ports import Figure, FiguresPort
from callgate.domain.metrics import Metric
from callgate.domain.reports import RecentEnd
from callgate.services.doctor import Check, Seen, failure, named, warning

ORGS_MAX = 20
"""Organisations whose budgets are named, those that used most."""
LATE_S = 60.0
"""Work that waits for longer should have been done."""
NEARLY = 0.8
DRIFT_MIN_USD = 1e-9
REFUSED = "budget_"
"""How the reasons begin with which budgets refuse calls."""


class Figures:
    """The figures of one moment; they are read when the first is asked for."""

    def __init__(self, port: FiguresPort) -> None:
        self._read = cache(lambda: port.current_figures(orgs_max=ORGS_MAX))

    def value(self, metric: Metric, *labels: str) -> float:
        """The sum of a metric's figures whose labels begin like this."""
        return sum(f.value for f in self.of(metric) if f.labels[: len(labels)] == labels)

    def of(self, metric: Metric) -> Iterator[Figure]:
        """All figures of a metric."""
        return (f for f in self._read() if f.name == metric.name)

    @property
    def queued(self) -> int:
        """Calls that wait for a worker."""
        return int(self.value(metrics.CALLS, CallState.QUEUED))

    @property
    def queue_age_s(self) -> float:
        """How long the oldest of them has waited."""
        return self.value(metrics.QUEUE_AGE)


def figure_checks(figures: Figures, ended: Callable[[], Sequence[RecentEnd]]) -> list[Check]:
    """
    Checks of what waits, what is spent, and what is not settled or told.

    Args:
        ended: How calls ended without an answer a short while ago.
    """

    def check(name: str, look: Callable[[Figures], Seen]) -> Check:
        return Check(name, lambda: look(figures), needs="schema", may_be_hidden=True)

    return [
        check("backlog", _backlog),
        check("settlement", _settlement),
        check("budgets", lambda seen: _budgets(seen, ended())),
        check("drift", _drift),
        check("links", _links),
    ]


def _backlog(figures: Figures) -> Seen:
    waiting = {
        f.labels[1]: int(f.value)
        for f in figures.of(metrics.CALLS)
        if f.labels[0] == CallState.WAITING and f.value
    }
    running = int(figures.value(metrics.CALLS, CallState.RUNNING))
    parts = [f"{figures.queued} calls are queued", f"{running} run"]
    parts += [f"{count} wait ({reason})" for reason, count in waiting.items()]
    sentence = ", ".join(parts)
    if figures.queue_age_s <= LATE_S:
        return Seen(sentence)
    return warning(f"{sentence}; the oldest has been queued for {figures.queue_age_s:.0f} s")


def _settlement(figures: Figures) -> Seen:
    answered = sum(int(f.value) for f in figures.of(metrics.UNPOSTED) if f.labels[2] == "answered")
    sent = int(figures.value(metrics.UNPOSTED)) - answered
    lag_s = figures.value(metrics.SETTLE_LAG)
    sentence = f"{sent} attempts are under way, {answered} answers are not settled"
    if lag_s <= LATE_S:
        return Seen(sentence)
    return warning(f"{sentence}, the oldest for {lag_s:.0f} s")


def _budgets(figures: Figures, ended: Sequence[RecentEnd]) -> Seen:
    used_up, nearly, total = (
        int(figures.value(metrics.BUDGETS, *labels)) for labels in (("100",), ("80",), ())
    )
    waiting = int(figures.value(metrics.CALLS, CallState.WAITING, WaitReason.BUDGET_EXHAUSTED))
    refused = [end for end in ended if end.reason.startswith(REFUSED)]
    if not used_up and not nearly and not waiting and not refused:
        return Seen(f"{total} run, none is used by 80 % or more")
    parts = [f"of {total}, {used_up} are used up and {nearly} by 80 % or more"]
    if not used_up and (waiting or refused):
        # A budget can refuse calls with much left: a call may need more.
        parts = [f"calls need more than is left: of {total}, {nearly} are used by 80 % or more"]
    if largest := _largest(figures):
        parts.append(named(largest))
    if waiting:
        parts.append(f"{waiting} calls wait for the next period (budget_exhausted)")
    if refused:
        told = [f"{end.calls} with {end.reason}, most of {end.org_id}" for end in refused]
        parts.append(f"refused a short while ago: {named(told)}")
    return warning("; ".join(parts))


def _largest(figures: Figures) -> list[str]:
    """Those of the largest organisations, the fullest first."""
    found = []
    for limit in figures.of(metrics.BUDGET_LIMIT):
        org_id, scope, window = limit.labels
        held = figures.value(metrics.BUDGET_HELD, *limit.labels)
        spent = figures.value(metrics.BUDGET_SPENT, *limit.labels)
        if org_id != metrics.OTHER and held + spent >= NEARLY * limit.value:
            money = f"${spent:.6f} spent and ${held:.6f} held of ${limit.value:.6f}"
            left = limit.value - held - spent
            found.append((left, f"{org_id} ({scope}, {window}: {money})"))
    return [text for _, text in sorted(found)]


def _drift(figures: Figures) -> Seen:
    found = list(figures.of(metrics.DRIFT))
    if not found:
        return warning("not known: too many attempts are under way to add them up")
    drift_usd = sum(f.value for f in found)
    if drift_usd < DRIFT_MIN_USD:
        return Seen("what budgets hold and have spent is what their attempts hold and have posted")
    parts = ", ".join(f"{f.labels[0]}: ${f.value:.9f}" for f in found)
    return failure(f"budgets differ from their attempts by ${drift_usd:.9f} ({parts})")


def _links(figures: Figures) -> Seen:
    count, late_s = (
        int(figures.value(metrics.UNDELIVERED)),
        figures.value(metrics.LINKS_OVERDUE),
    )
    if not count:
        return Seen("all are delivered")
    sentence = f"{count} ended calls have links to deliver"
    if late_s <= LATE_S:
        return Seen(sentence)
    return warning(f"{sentence}, the oldest overdue by {late_s:.0f} s")
