"""Real workers and Flower answer `/metrics` with the numbers of the ledger, and at once while it is away."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from callgate.domain import metrics
from callgate.domain.metrics import Metric
from callgate.services.figure_reader import KEPT_INTERVALS
from devkit.servers.ports import free_port
from devkit.simulator.simulator import Kind, Match, ReportedUsage, Rule, Step
from tests.support.deployment import Deployment, Process, until
from tests.support.flower import a_flower

PATIENCE_S = 30.0
INTERVAL_S = 1
"""Between two reads of the ledger's figures."""
USAGE = ReportedUsage(prompt_tokens=11, completion_tokens=7, cached_tokens=3)
OUTCOMES = """SELECT kind, status, coalesce(error_json::json->>'code', '') AS code, count(*) AS attempts
  FROM ai_call_log GROUP BY 1, 2, 3"""
SUMS = """SELECT coalesce(sum(input_tokens), 0) AS input, coalesce(sum(cached_input_tokens), 0) AS cached_input,
       coalesce(sum(output_tokens), 0) AS output, coalesce(sum(posted_nano_usd), 0) / 1e9 AS usd FROM ai_call_log"""
STATES = "SELECT state, coalesce(end_reason, '') AS reason, count(*) AS calls FROM llm_call GROUP BY 1, 2"

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def scrape(port: int) -> Samples:
    """All samples of a process by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def value(found: Samples, metric: Metric, *labels: str, ending: str = "") -> float:
    """One value; 0 if nothing was counted."""
    named = frozenset(zip(metric.labels, labels, strict=True))
    return found.get(metric.name + ending, {}).get(named, 0.0)


def counted(found: Samples, metric: Metric) -> float:
    """The sum over all labels."""
    return sum(found.get(metric.name, {}).values())


@pytest.fixture
def worker(deployment: Deployment) -> Iterator[tuple[Process, int]]:
    """A new worker, alone, that answers at a port."""
    deployment.stop_workers()
    deployment.rows(
        "TRUNCATE llm_call, submission, undelivered_call, ai_call_log, budget, worker_lease,"
        " attempt_delta, quarter_sum, day_sum, budget_sum"
    )
    port = free_port()
    process = deployment.worker(
        CALLGATE_WORKER__STATUS_PORT=str(port),
        CALLGATE_WORKER__METRICS_INTERVAL_S=str(INTERVAL_S),
        CALLGATE_WORKER__METRICS_ORGS_MAX="1",
    )
    yield process, port
    process.kill()


def until_figures_are_new(deployment: Deployment, port: int) -> Samples:
    """Wait for figures that were read after now, by the ledger's clock."""
    ((now,),) = deployment.rows("SELECT extract(epoch FROM clock_timestamp())::float8")
    until(lambda: value(scrape(port), metrics.READ_AT) > now, PATIENCE_S)
    return scrape(port)


def test_the_counters_of_a_worker_are_the_sums_of_the_ledger(
    deployment: Deployment, worker: tuple[Process, int]
) -> None:
    process, port = worker
    rich, poor = deployment.org(), deployment.org(1)
    deployment.provider.script(
        [
            Rule(match=Match(text="refused"), reply=[Step(kind=Kind.STATUS, status=400)]),
            Rule(reply=[Step(text="yes", usage=USAGE)]),
        ]
    )
    contents = [f"works {n}" for n in range(12)] + [f"refused {n}" for n in range(3)]
    requests = [deployment.request(rich, content) for content in contents]
    requests += [deployment.request(poor, f"too dear {n}") for n in range(4)]

    handles = deployment.client.submit_many(requests)
    until(lambda: deployment.open_calls() == 0, PATIENCE_S, process.output)
    found = until_figures_are_new(deployment, port)

    assert len(handles) == 19
    for kind, status, code, attempts in deployment.rows(OUTCOMES):
        labels = ("sim", "sim-1", kind, status, code)
        assert value(found, metrics.ATTEMPTS, *labels) == attempts, labels
    for state, reason, calls in deployment.rows(STATES):
        assert value(found, metrics.CALLS_ENDED, state, reason) == calls, (state, reason)
    ((tokens_in, cached, tokens_out, usd),) = deployment.rows(SUMS)
    assert value(found, metrics.TOKENS, "sim", "sim-1", "input") == tokens_in == 12 * 11
    assert value(found, metrics.TOKENS, "sim", "sim-1", "cached_input") == cached == 12 * 3
    assert value(found, metrics.TOKENS, "sim", "sim-1", "output") == tokens_out == 12 * 7
    assert counted(found, metrics.COST) == pytest.approx(float(usd))
    assert counted(found, metrics.ATTEMPTS) == 15
    assert value(found, metrics.PROVIDER_LATENCY, "sim", "sim-1", "reply", ending="_count") == 12
    assert value(found, metrics.RECORD_LATENCY, ending="_count") == 15
    assert value(found, metrics.RESERVE_LATENCY, ending="_count") >= 19


def test_worker_and_flower_show_the_same_figures_of_the_ledger(
    deployment: Deployment, worker: tuple[Process, int]
) -> None:
    """One of them reads, and both show it. Of two organisations the one that used more is named."""
    process, port = worker
    large, small = deployment.org(), deployment.org()
    deployment.provider.script([Rule(reply=[Step(text="yes", usage=USAGE)])])
    handles = deployment.client.submit_many(
        [deployment.request(large) for _ in range(5)] + [deployment.request(small)]
    )
    for handle in handles:
        handle.get(timeout=PATIENCE_S)
    flower_port = free_port()
    changes = {
        "CALLGATE_WORKER__FLOWER_STATUS_PORT": str(flower_port),
        "CALLGATE_WORKER__METRICS_INTERVAL_S": str(INTERVAL_S),
        "CALLGATE_WORKER__METRICS_ORGS_MAX": "1",
    }
    with a_flower(deployment, **changes):
        both = [until_figures_are_new(deployment, p) for p in (port, flower_port)]

        per_call = (11 + 2 * 7) / 1_000_000
        for found in both:
            assert value(found, metrics.LEASES, "live") == 1
            spent = found[metrics.BUDGET_SPENT.name]
            assert len(spent) == 2
            assert value(found, metrics.BUDGET_SPENT, large, "org", "day") == pytest.approx(
                5 * per_call
            )
            assert value(found, metrics.BUDGET_SPENT, "other", "org", "day") == pytest.approx(
                per_call
            )
            assert value(found, metrics.BUDGET_HELD, large, "org", "day") == 0
            assert value(found, metrics.DRIFT, "held") == 0
        until(lambda: "flower_worker_online" in scrape(flower_port), PATIENCE_S)
        assert "flower_worker_online" not in both[0]
        assert counted(both[1], metrics.ATTEMPTS) == 0

        process.kill()
        until(
            lambda: value(scrape(flower_port), metrics.LEASES, "live") == 0,
            PATIENCE_S,
            lambda: str(scrape(flower_port)),
        )


def test_a_worker_without_its_ledger_answers_at_once_and_drops_old_figures(
    deployment: Deployment, worker: tuple[Process, int]
) -> None:
    _, port = worker
    until_figures_are_new(deployment, port)
    deployment.services.postgres.suspend()
    try:
        ends_at = time.monotonic() + PATIENCE_S
        slowest_s, found = 0.0, scrape(port)
        assert metrics.CALLS.name in found
        while metrics.CALLS.name in found and time.monotonic() < ends_at:
            began = time.monotonic()
            found = scrape(port)
            slowest_s = max(slowest_s, time.monotonic() - began)
            time.sleep(0.1)

        assert metrics.CALLS.name not in found
        assert metrics.RECOVERIES.name in found
        assert slowest_s < 1.0
    finally:
        deployment.services.postgres.resume()
    assert KEPT_INTERVALS * INTERVAL_S < PATIENCE_S
    until_figures_are_new(deployment, port)
