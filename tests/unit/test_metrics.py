"""Processes count what happens, within bounds, and show the figures of the ledger while they are new."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain import metrics
from callgate.domain.budgets import NANO_PER_USD, Window
from callgate.domain.calls import CallState
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import Reserved
from callgate.domain.metric_ports import Figure, LedgerFigures
from callgate.domain.metrics import METRICS, OTHER, SERIES_MAX, Metric
from callgate.domain.provider import Billing, Failure
from callgate.domain.requests import Usage
from callgate.services.figure_reader import KEPT_INTERVALS, FigureReader
from callgate.services.sending import record_of
from tests.support.ledger_under_test import a_reserve
from tests.support.service_world import (
    GRACE_S,
    POLICY,
    REPLY,
    REPLY_COST,
    ManualClock,
    ServiceWorld,
)
from worker.metrics.exposition import Exposition
from worker.metrics.meter import PrometheusMeter

REFUSED = Failure("authentication_failed", "no", False, Billing.UNBILLED, 401)
CUT_OFF = Failure("timeout", "not complete", True, Billing.UNKNOWN)


class Counting:
    """A world of services that count."""

    def __init__(self, **options: object) -> None:
        meter = PrometheusMeter()
        self.registry = CollectorRegistry()
        self.registry.register(meter)
        self.world = ServiceWorld(meter=meter, **options)  # type: ignore[arg-type]

    def value(self, metric: Metric, *labels: str, ending: str = "") -> float | None:
        """What was counted under these labels."""
        named = dict(zip(metric.labels, labels, strict=True))
        return self.registry.get_sample_value(metric.name + ending, named)


def test_a_success_is_counted_with_its_tokens_cost_and_times() -> None:
    counting = Counting()
    usage = Usage(input_tokens=10, cached_input_tokens=4, output_tokens=5)
    counting.world.provider.script = [replace(REPLY, usage=usage)]
    counting.world.provider.latency_s = 3.0

    view = asyncio.run(counting.world.run(counting.world.submit().key))

    assert view.last is not None
    posted = view.last.posted_nano_usd or 0
    names = ("sim", "sim-1")
    assert counting.value(metrics.ATTEMPTS, *names, "first", "succeeded", "") == 1
    assert counting.value(metrics.CALLS_ENDED, "succeeded", "") == 1
    assert counting.value(metrics.COST, *names, "succeeded") == posted / NANO_PER_USD
    assert counting.value(metrics.TOKENS, *names, "input") == 10
    assert counting.value(metrics.TOKENS, *names, "cached_input") == 4
    assert counting.value(metrics.TOKENS, *names, "output") == 5
    assert counting.value(metrics.TOKENS, *names, "reasoning") is None
    assert counting.value(metrics.PROVIDER_LATENCY, *names, "reply", ending="_sum") == 3.0
    assert counting.value(metrics.RESERVE_LATENCY, ending="_count") == 1
    assert counting.value(metrics.RECORD_LATENCY, ending="_count") == 1


def test_a_failure_is_counted_with_its_code_and_the_call_that_dies_of_it() -> None:
    counting = Counting()
    counting.world.provider.script = [REFUSED]

    view = asyncio.run(counting.world.run(counting.world.submit().key))

    assert view.state is CallState.DEAD
    labels = ("sim", "sim-1", "first", "failed", "authentication_failed")
    assert counting.value(metrics.ATTEMPTS, *labels) == 1
    assert counting.value(metrics.CALLS_ENDED, "dead", "authentication_failed") == 1
    assert counting.value(metrics.COST, "sim", "sim-1", "failed") == 0
    assert counting.value(metrics.PROVIDER_LATENCY, "sim", "sim-1", "failure", ending="_count") == 1


def test_a_call_that_waits_has_not_ended() -> None:
    counting = Counting()
    counting.world.provider.script = [CUT_OFF]

    view = asyncio.run(counting.world.run(counting.world.submit().key))

    assert view.state is CallState.WAITING
    assert counting.value(metrics.ATTEMPTS, "sim", "sim-1", "first", "unknown", "timeout") == 1
    assert counting.value(metrics.CALLS_ENDED, "dead", "timeout") is None


def test_a_rejected_call_is_counted_with_its_reason() -> None:
    counting = Counting(limit_nano_usd=1)

    view = asyncio.run(counting.world.run(counting.world.submit().key))

    assert view.state is CallState.REJECTED
    assert counting.value(metrics.CALLS_ENDED, "rejected", "budget_too_small") == 1


def test_an_attempt_is_counted_once_and_a_late_answer_gives_money_back() -> None:
    """The attempt has expired and is unknown; then its answer comes."""
    counting = Counting()
    world, hold = counting.world, 2 * REPLY_COST
    (reserved,) = world.ledger.reserve([a_reserve(world.submit().key, hold)])
    assert isinstance(reserved, Reserved)
    world.clock.pass_time(POLICY.deadline_s + GRACE_S + 60)
    world.ai_call_logger.settle([reserved.ref], are_expired=True)
    world.clock.pass_time(1)
    world.ledger.record([record_of(reserved.ref, REPLY, 5)])

    world.ai_call_logger.settle([reserved.ref])
    world.ai_call_logger.settle([reserved.ref])

    names = ("sim", "sim-1")
    assert counting.value(metrics.ATTEMPTS, *names, "first", "unknown", "worker_lost") == 1
    assert counting.value(metrics.ATTEMPTS, *names, "first", "succeeded", "") is None
    assert counting.value(metrics.LATE_ANSWERS, *names) == 1
    cost = counting.value(metrics.COST, *names, "unknown") or 0
    returned = counting.value(metrics.COST_RETURNED, *names) or 0
    assert cost == hold / NANO_PER_USD
    assert cost - returned == pytest.approx(REPLY_COST / NANO_PER_USD)


def test_recoveries_and_links_are_counted() -> None:
    counting = Counting()
    world = counting.world
    link = '{"task": "pipeline.store", "args": []}'
    key = world.submit(link=link).key
    asyncio.run(world.llm.execute(key))
    world.clock.pass_time(60)

    world.due.run()

    assert world.view(key).state is CallState.SUCCEEDED
    assert counting.value(metrics.RECOVERIES, "unsettled_answer") == 1
    assert counting.value(metrics.RECOVERIES, "expired_attempt") == 0
    assert counting.value(metrics.LINKS, "delivered") == 1


def test_lost_messages_are_counted() -> None:
    counting = Counting()
    counting.world.submit()
    counting.world.clock.pass_time(60)

    counting.world.due.sweep(counting.world.clock.now())

    assert counting.value(metrics.RECOVERIES, "lost_message") == 1


def test_a_metric_has_a_bounded_number_of_series() -> None:
    """Models are what clients name; a loop of random names must not fill the memory of two programs."""
    meter = PrometheusMeter()
    registry = CollectorRegistry()
    registry.register(meter)

    for n in range(SERIES_MAX + 70):
        meter.count(metrics.LATE_ANSWERS, "sim", f"model-{n}")

    (family,) = [f for f in registry.collect() if f.name + "_total" == metrics.LATE_ANSWERS.name]
    assert len(family.samples) == SERIES_MAX + 1
    named = dict.fromkeys(metrics.LATE_ANSWERS.labels, OTHER)
    assert registry.get_sample_value(metrics.LATE_ANSWERS.name, named) == 70


class FigureLedger:
    """The figures of a memory ledger, which can be away."""

    def __init__(self, clock: ManualClock) -> None:
        self.ledger = MemoryLedger(clock=clock.now)
        self.is_away = False
        self.asked = 0

    def read_figures(self, *, interval_s: float, orgs_max: int) -> LedgerFigures:
        self.asked += 1
        if self.is_away:
            raise LedgerUnavailable("away")
        return self.ledger.figures.read_figures(interval_s=interval_s, orgs_max=orgs_max)

    def current_figures(self, *, orgs_max: int) -> tuple[Figure, ...]:
        return self.ledger.figures.current_figures(orgs_max=orgs_max)


def test_figures_are_shown_from_memory_and_left_out_when_they_are_old() -> None:
    clock = ManualClock()
    figures = FigureLedger(clock)
    reader = FigureReader(figures, clock, interval_s=15, orgs_max=5)
    assert reader.newest() is None
    reader.run()
    figures.is_away = True
    clock.pass_time(KEPT_INTERVALS * 15 - 1)
    with pytest.raises(LedgerUnavailable):
        reader.run()

    assert reader.newest() is not None
    assert figures.asked == 2
    clock.pass_time(2)
    assert reader.newest() is None


def test_figures_that_were_old_when_they_came_are_left_out_sooner() -> None:
    clock = ManualClock()
    figures = FigureLedger(clock)
    figures.read_figures(interval_s=15, orgs_max=5)
    clock.pass_time(14)
    reader = FigureReader(figures, clock, interval_s=15, orgs_max=5)
    reader.run()

    clock.pass_time(KEPT_INTERVALS * 15 - 13)

    assert reader.newest() is None


def test_the_answer_has_each_metric_in_the_format_of_prometheus() -> None:
    clock = ManualClock()
    ledger = FigureLedger(clock)
    ledger.ledger.set_budget('a"\\b\n', "org", Window.DAY, 5 * NANO_PER_USD)
    exposition = Exposition(lambda: ledger.read_figures(interval_s=1, orgs_max=5))

    body = exposition.answer().body.decode()

    families = {family.name: family for family in text_string_to_metric_families(body)}
    named = {metric.name.removesuffix("_total") for metric in METRICS}
    assert named <= families.keys()
    assert "process_resident_memory_bytes" in families
    (sample,) = families[metrics.BUDGET_LIMIT.name].samples
    assert (sample.labels["org_id"], sample.value) == ('a"\\b\n', 5.0)
    (read_at,) = families[metrics.READ_AT.name].samples
    assert read_at.value == clock.now().timestamp()
    assert "_created" not in body


def test_without_figures_there_are_none_instead_of_zeros() -> None:
    body = Exposition(lambda: None).answer().body.decode()

    assert metrics.CALLS.name not in {f.name for f in text_string_to_metric_families(body)}
    assert metrics.RECOVERIES.name in body


def test_figures_of_another_version_are_left_out() -> None:
    clock = ManualClock()
    found = FigureLedger(clock).read_figures(interval_s=1, orgs_max=5)
    strange = replace(found.figures[0], name="callgate_unheard_of")
    exposition = Exposition(lambda: replace(found, figures=(strange, *found.figures)))

    assert b"unheard_of" not in exposition.answer().body
