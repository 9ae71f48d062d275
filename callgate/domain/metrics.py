"""
The metrics: one table with name, type, labels and meaning of each. `docs/metrics.md` is made from it.

Those of a *process* are counted where something happens, and add up over all processes. Those of the *ledger* are
figures of the whole ledger. One process reads them for all, and each process shows the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SERIES_MAX = 500
"""Combinations of labels of one metric in one process. What comes after them is counted under `OTHER`."""
OTHER = "other"
"""The label of organisations that are not among the largest, and of what exceeds `SERIES_MAX`."""
ROWS_MAX = 20_000
"""How many rows of one kind the ledger counts for a figure. A larger figure shows this number."""
BUDGETS_MAX = 100_000
"""How many budgets it reads."""
GROUPS_MAX = 200
"""How many series one figure of the ledger has at most."""

LEDGER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
PROVIDER_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)


class MetricType(StrEnum):
    """How Prometheus treats the values."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of series."""

    name: str
    type: MetricType
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """The upper bounds of a histogram, in seconds."""
    is_of_ledger: bool = False
    first: tuple[str, ...] = ()
    """Values of its one label that are shown as 0 before anything is counted, so that the first one is an increase."""


def _counter(name: str, meaning: str, *labels: str, first: tuple[str, ...] = ()) -> Metric:
    return Metric(f"callgate_{name}_total", MetricType.COUNTER, meaning, labels, first=first)


def _histogram(name: str, buckets: tuple[float, ...], meaning: str, *labels: str) -> Metric:
    return Metric(f"callgate_{name}_seconds", MetricType.HISTOGRAM, meaning, labels, buckets)


def _figure(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"callgate_{name}", MetricType.GAUGE, meaning, labels, is_of_ledger=True)


CALLS_ENDED = _counter(
    "calls_ended",
    "Calls that this process ended, by state (succeeded, dead, rejected). `reason` is the code of the error.",
    *("state", "reason"),
)
ATTEMPTS = _counter(
    "attempts",
    "Attempts that this process settled, by outcome (succeeded, failed, unknown) and the code of their failure.",
    *("provider", "model", "kind", "outcome", "failure"),
)
TOKENS = _counter(
    "tokens",
    "Tokens of settled attempts, as the provider counted them. `input` includes `cached_input` and `cache_write`;"
    " `output` includes `reasoning`.",
    *("provider", "model", "kind"),
)
COST = _counter(
    "cost_usd",
    "What settled attempts cost. Of an unknown bill it is the whole hold.",
    *("provider", "model", "outcome"),
)
COST_RETURNED = _counter(
    "cost_returned_usd",
    "What late answers took back from the cost of attempts that were unknown.",
    *("provider", "model"),
)
LATE_ANSWERS = _counter(
    "late_answers",
    "Attempts that were unknown, and whose answer was settled after all.",
    *("provider", "model"),
)
RECOVERIES = _counter(
    "recoveries",
    "What this process recovered: `expired_attempt`, `unsettled_answer`, `lost_message`, `lost_worker`.",
    "kind",
    first=("expired_attempt", "unsettled_answer", "lost_message", "lost_worker"),
)
LINKS = _counter(
    "links",
    "Tries to deliver a link, by outcome: `delivered`, `deferred`, `abandoned`.",
    "outcome",
    first=("delivered", "deferred", "abandoned"),
)
PROVIDER_LATENCY = _histogram(
    "provider_request",
    PROVIDER_S,
    "Requests to providers, to the last byte of the reply. `outcome`: `reply` or `failure`.",
    *("provider", "model", "outcome"),
)
RESERVE_LATENCY = _histogram(
    "reserve", LEDGER_S, "One try to claim a call, with its wait for the statement of its batch."
)
RECORD_LATENCY = _histogram(
    "record", LEDGER_S, "One try to keep an answer, with its wait for the statement of its batch."
)

READ_AT = _figure(
    "ledger_read_timestamp_seconds", "When the figures of the ledger were read, by its clock."
)
CALLS = _figure(
    "calls",
    "Open calls, by state (queued, running, waiting) and the reason to wait. Counted are the first"
    f" {ROWS_MAX:,} of the queued, and as many of the others, those that are due first.",
    *("state", "reason"),
)
QUEUE_AGE = _figure(
    "queue_age_seconds", "Age of the call that has been queued for the longest time; 0: none is."
)
SETTLE_LAG = _figure(
    "settle_lag_seconds", "Age of the oldest answer that is recorded and not settled; 0: none is."
)
UNPOSTED = _figure(
    "attempts_unposted",
    "Attempts whose money is not posted, by status: `dispatched` (under way) or `answered` (to be settled).",
    *("provider", "model", "status"),
)
BUDGET_LIMIT = _figure(
    "budget_limit_usd",
    "Limits of budgets whose period runs, of the largest organisations; `other` is the sum of the rest.",
    *("org_id", "scope", "window"),
)
BUDGET_HELD = _figure(
    "budget_held_usd", "What is held of these budgets.", *("org_id", "scope", "window")
)
BUDGET_SPENT = _figure(
    "budget_spent_usd",
    "What is spent of these budgets in their period.",
    *("org_id", "scope", "window"),
)
BUDGETS = _figure(
    "budgets",
    "Budgets of all organisations whose period runs, by how many percent are spent or held: `0`, `50`, `80` or"
    " `100` at least.",
    "used_percent",
)
UNKNOWN_BILLS = _figure(
    "unknown_bills", "Attempts whose bill is unknown and was not settled by hand."
)
UNKNOWN_USD = _figure("unknown_bills_usd", "What these attempts have posted: their whole holds.")
LIMIT_USED = _figure(
    "provider_limit_used_ratio",
    "How much of a provider limit is used: 1 is all that may be used at once. `key`: `provider` or `organisation`;"
    " of several keys the fullest.",
    *("provider", "model", "key", "measure", "window_s"),
)
BLOCKED_KEYS = _figure(
    "blocked_keys",
    "Keys that take no request for a while, because their provider refused one for its rate.",
    *("provider", "model"),
)
OPEN_BREAKERS = _figure(
    "open_breakers",
    "Other open breakers. `key`: that of the `provider` or of an `organisation`. `calls_of`: `all` organisations, or"
    " one `organisation`. `reason`: the failure that opened it, or `operator`.",
    *("provider", "model", "key", "calls_of", "reason"),
)
PAUSES = _figure(
    "pauses", "Pauses of operators that hold now, by kind: `pause` or `freeze`.", "kind"
)
LEASES = _figure("worker_leases", "Worker processes by their lease: `live` or `expired`.", "state")
WORKER_VARIANTS = _figure(
    "worker_variants",
    "How many different ones live workers have: `catalogue`, `limits` (of providers, as they declare them), `settings`,"
    " `version` or `schema`. 1 at most, unless they differ.",
    "part",
)
UNDELIVERED = _figure("undelivered_calls", "Ended calls that have a link to deliver.")
LINKS_OVERDUE = _figure(
    "links_overdue_seconds",
    "How long the delivery of the most overdue link has been due; 0: none is.",
)
DRIFT = _figure(
    "audit_drift_usd",
    "By how much budgets differ from their attempts, in periods that run or ended less than two days ago. It must be"
    " 0. `figure`: `held` by the rows, `spent` by the sums; `callgate audit` proves the rest.",
    "figure",
)

METRICS = (
    CALLS_ENDED, ATTEMPTS, TOKENS, COST, COST_RETURNED, LATE_ANSWERS, RECOVERIES, LINKS, PROVIDER_LATENCY,
    RESERVE_LATENCY, RECORD_LATENCY,
    READ_AT, CALLS, QUEUE_AGE, SETTLE_LAG, UNPOSTED, BUDGET_LIMIT, BUDGET_HELD, BUDGET_SPENT, BUDGETS, UNKNOWN_BILLS,
    UNKNOWN_USD, LIMIT_USED, BLOCKED_KEYS, OPEN_BREAKERS, PAUSES, LEASES, WORKER_VARIANTS, UNDELIVERED, LINKS_OVERDUE,
    DRIFT,
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}
