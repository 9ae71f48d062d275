"""Write docs/metrics.md from the table of metrics: `python -m tests.support.metrics_page`."""

from __future__ import annotations

from pathlib import Path

from callgate.domain.metrics import GROUPS_MAX, METRICS, SERIES_MAX, Metric
from callgate.services.figure_reader import KEPT_INTERVALS

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
INTRODUCTION = f"""\
# Metrics

Each worker process, and Flower, answers `/metrics` in the text format of Prometheus, beside `/live` and `/ready`.
The address is `CALLGATE_WORKER__STATUS_ADDRESS`, a loopback address unless you set another. The port is
`CALLGATE_WORKER__STATUS_PORT` for a worker, and `CALLGATE_WORKER__FLOWER_STATUS_PORT` for Flower. There is no password.
Names of organisations, providers and models are shown; no secret, prompt or answer is. `ops/` has a scrape
configuration, alert rules and a Grafana dashboard; [runbook](runbook/README.md) has a page for each alert.

## Two kinds, and how to aggregate them

**Of the process** (counters and histograms). Each process counts what it does itself. *Sum* them, after `rate` or
`increase`: `sum by (provider) (rate(callgate_cost_usd_total[5m]))`. They begin at 0 with each process.

**Of the ledger** (gauges). They are figures of the whole ledger, and the same in every process. Take the *maximum*;
a sum would count the ledger once for each process: `max by (state) (callgate_calls)`. A process that cannot read the
ledger goes on showing them for {KEPT_INTERVALS} intervals, and then none. `callgate_ledger_read_timestamp_seconds`
says how old they are.

One process reads them for all, at most every `CALLGATE_WORKER__METRICS_INTERVAL_S`. It keeps them in the ledger; the
others read that one row. A scrape reads only the memory of its process, so it answers at once while Postgres is away
([ADR 24](adr/0024-metrics.md)).

## Bounds

`org_id` names the `CALLGATE_WORKER__METRICS_ORGS_MAX` organisations that used most of their budgets' money in running
periods; the sum of all others is `other`. Which these are changes with time. A figure of the ledger has at most
{GROUPS_MAX} series; more are left out. A counter or histogram has at most {SERIES_MAX} in a process; what comes
after them is counted with all labels `other`. `scope` is `org` or `call_type:NAME`.

A quarantined call runs in a process of its own. What that process measures (latencies, a refused claim) is not shown;
its attempt is counted where it is settled. What operators end on the command line is in no counter. If Postgres stored
a settlement and its answer did not reach the worker, the settlement is not counted. For money use `callgate costs`,
which reads the sums of the ledger ([ADR 25](adr/0025-sums-are-kept-in-deltas.md)).
"""
HEAD = "| name | type | labels | meaning |\n|---|---|---|---|\n"


def page() -> str:
    """The whole page."""
    of_processes = [metric for metric in METRICS if not metric.is_of_ledger]
    of_ledger = [metric for metric in METRICS if metric.is_of_ledger]
    return (
        f"{INTRODUCTION}\n## Of the process\n\n{HEAD}"
        + "".join(map(_row, of_processes))
        + f"\n## Of the ledger\n\n{HEAD}"
        + "".join(map(_row, of_ledger))
        + "\nThis page is written from `callgate/domain/metrics.py` by `python -m tests.support.metrics_page`.\n"
    )


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{name}`" for name in metric.labels)
    cells = (f"`{metric.name}`", metric.type.value, labels, metric.meaning)
    return "| " + " | ".join(cells).replace("|  |", "| |") + " |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
