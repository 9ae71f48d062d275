"""The doctor's checks of the ledger's figures: from which value on each is amiss."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from callgate.domain import metrics
from callgate.domain.metric_ports import Figure, LedgerFigures
from callgate.domain.metrics import Metric
from callgate.domain.reports import RecentEnd
from callgate.services.doctor import Finding, FindingStatus, run_checks
from callgate.services.figure_checks import LATE_S, Figures, figure_checks

QUIET = (
    (metrics.CALLS, ("queued", ""), 0.0),
    (metrics.CALLS, ("running", ""), 2.0),
    (metrics.CALLS, ("waiting", "provider"), 3.0),
    (metrics.CALLS, ("waiting", "memory"), 0.0),
    (metrics.QUEUE_AGE, (), 0.0),
    (metrics.UNPOSTED, ("openai", "m", "dispatched"), 2.0),
    (metrics.UNPOSTED, ("openai", "m", "answered"), 1.0),
    (metrics.SETTLE_LAG, (), 1.0),
    (metrics.BUDGETS, ("0",), 4.0),
    (metrics.BUDGETS, ("80",), 0.0),
    (metrics.BUDGETS, ("100",), 0.0),
    (metrics.DRIFT, ("held",), 0.0),
    (metrics.UNDELIVERED, (), 0.0),
    (metrics.LINKS_OVERDUE, (), 0.0),
)
Row = tuple[Metric, tuple[str, ...], float]


class Read:
    """`FiguresPort` with these figures; it counts how often it is read."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.reads = 0

    def read_figures(self, *, interval_s: float, orgs_max: int) -> LedgerFigures:
        raise AssertionError

    def current_figures(self, *, orgs_max: int) -> tuple[Figure, ...]:
        self.reads += 1
        return tuple(Figure(metric.name, labels, value) for metric, labels, value in self.rows)


def findings(
    *changes: Row, without: Metric | None = None, ended: Sequence[RecentEnd] = ()
) -> dict[str, Finding]:
    """The findings where the quiet ledger has these figures instead."""
    changed = {(metric.name, labels) for metric, labels, _ in changes}
    rows = [r for r in QUIET if (r[0].name, r[1]) not in changed and r[0] is not without]
    read = Read([*rows, *changes])
    found = {f.name: f for f in run_checks(figure_checks(Figures(read), lambda: ended))}
    assert read.reads == 1
    return found


def test_a_quiet_ledger_is_fine_and_told_in_figures() -> None:
    found = findings()

    assert {f.status for f in found.values()} == {FindingStatus.OK}
    assert found["backlog"].sentence == "0 calls are queued, 2 run, 3 wait (provider)"
    assert found["settlement"].sentence == "2 attempts are under way, 1 answers are not settled"
    assert found["budgets"].sentence == "4 run, none is used by 80 % or more"
    assert found["links"].sentence == "all are delivered"


@pytest.mark.parametrize(
    ("changes", "name", "status", "says"),
    [
        (
            [(metrics.CALLS, ("queued", ""), 7.0), (metrics.QUEUE_AGE, (), LATE_S + 1)],
            "backlog",
            FindingStatus.WARN,
            "7 calls are queued, 2 run, 3 wait (provider); the oldest has been queued for 61 s",
        ),
        (
            [(metrics.SETTLE_LAG, (), LATE_S + 1)],
            "settlement",
            FindingStatus.WARN,
            "1 answers are not settled, the oldest for 61 s",
        ),
        (
            [(metrics.DRIFT, ("held",), 2e-9)],
            "drift",
            FindingStatus.FAIL,
            "differ from their attempts by $0.000000002",
        ),
        (
            [(metrics.UNDELIVERED, (), 3.0), (metrics.LINKS_OVERDUE, (), LATE_S + 1)],
            "links",
            FindingStatus.WARN,
            "3 ended calls have links to deliver, the oldest overdue by 61 s",
        ),
        (
            [(metrics.UNDELIVERED, (), 3.0)],
            "links",
            FindingStatus.OK,
            "3 ended calls have links to deliver",
        ),
    ],
)
def test_what_is_late_or_wrong_is_said(
    changes: list[Row], name: str, status: FindingStatus, says: str
) -> None:
    found = findings(*changes)

    assert found[name].status is status
    assert says in found[name].sentence
    assert {f.name for f in found.values() if f.status is not FindingStatus.OK} <= {name}


def test_budgets_that_are_used_up_or_nearly_are_named_if_they_are_large_enough() -> None:
    """The fullest first. `other` is a sum of many."""
    acme, other, bolt = (("acme", "org", "day"), ("other", "org", "day"), ("bolt", "org", "day"))
    found = findings(
        (metrics.BUDGETS, ("100",), 1.0),
        (metrics.BUDGETS, ("80",), 2.0),
        (metrics.BUDGET_LIMIT, bolt, 1.0),
        (metrics.BUDGET_SPENT, bolt, 0.9),
        (metrics.BUDGET_LIMIT, acme, 1.0),
        (metrics.BUDGET_HELD, acme, 0.25),
        (metrics.BUDGET_SPENT, acme, 0.75),
        (metrics.BUDGET_LIMIT, ("cheap", "org", "day"), 1.0),
        (metrics.BUDGET_LIMIT, other, 0.0),
    )

    assert found["budgets"].status is FindingStatus.WARN
    assert found["budgets"].sentence == (
        "of 7, 1 are used up and 2 by 80 % or more;"
        " acme (org, day: $0.750000 spent and $0.250000 held of $1.000000),"
        " bolt (org, day: $0.900000 spent and $0.000000 held of $1.000000)"
    )


def test_calls_that_wait_for_the_next_period_are_a_warning_though_no_budget_is_used_up() -> None:
    """What is left is less than one call needs."""
    found = findings((metrics.CALLS, ("waiting", "budget_exhausted"), 9.0))

    assert found["budgets"].status is FindingStatus.WARN
    assert "9 calls wait for the next period" in found["budgets"].sentence


def test_calls_that_budgets_refuse_now_are_told_though_none_is_used_up() -> None:
    """A call can need more than is left, or than the whole limit; or its organisation has no budget."""
    refused = RecentEnd("rejected", "budget_too_small", 3, 1, "acme")
    other = RecentEnd("dead", "server_error", 5, 1, "acme")

    found = findings(ended=[other, refused])["budgets"]

    assert found.status is FindingStatus.WARN
    assert "used up" not in found.sentence
    assert found.sentence == (
        "calls need more than is left: of 4, 0 are used by 80 % or more;"
        " refused a short while ago: 3 with budget_too_small, most of acme"
    )
    assert findings(ended=[other])["budgets"].status is FindingStatus.OK


def test_a_difference_that_was_not_added_up_is_not_called_zero() -> None:
    assert findings(without=metrics.DRIFT)["drift"].status is FindingStatus.WARN
