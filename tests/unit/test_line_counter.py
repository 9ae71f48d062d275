"""Repeated lines are counted: few lines for a thousand failures, and no failure is left out of the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from callgate.domain.log_events import EVENTS
from worker.line_counter import INTERVAL_S, LineCounter

REFUSED = {"reason": "authentication_failed", "provider": "openai", "credential": ""}
BUSY = {"reason": "server_error", "provider": "openai", "model": "a", "call_type": "letters"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Log:
    """Structlog with a counter and nothing else; remembers what is written."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        self.lines: list[dict[str, Any]] = []
        self.counter = LineCounter(monotonic=clock, **options)
        structlog.configure(
            processors=[self.counter, self._keep],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )

    def _keep(self, _logger: Any, level: str, line: Any) -> Any:
        self.lines.append({"level": level, **line})
        raise structlog.DropEvent

    def died(self, **fields: Any) -> None:
        structlog.get_logger().error("call.died", **fields)

    def counts(self) -> list[int]:
        return [line["count"] for line in self.lines]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make() -> Iterator[Callable[..., Log]]:
    yield Log
    structlog.reset_defaults()


def test_a_thousand_deaths_of_a_refused_key_are_two_lines(
    clock: Clock, make: Callable[..., Log]
) -> None:
    log = make(clock)
    for number in range(1_000):
        log.died(**REFUSED, model=f"m{number % 7}", call_id=number)

    clock.now = INTERVAL_S
    log.counter.flush()

    assert log.counts() == [1, 999]
    assert [line["call_id"] for line in log.lines] == [0, 999]
    assert {line["level"] for line in log.lines} == {"error"}


def test_a_line_that_comes_after_the_interval_brings_the_count(
    clock: Clock, make: Callable[..., Log]
) -> None:
    log = make(clock)
    for clock.now in (0.0, 1.0, 2.0, INTERVAL_S, INTERVAL_S + 1):
        log.died(**REFUSED)

    assert log.counts() == [1, 3]
    log.counter.flush(all_at_once=True)
    assert log.counts() == [1, 3, 1]
    log.counter.flush(all_at_once=True)
    assert log.counts() == [1, 3, 1]


def test_causes_that_differ_have_their_own_lines(clock: Clock, make: Callable[..., Log]) -> None:
    log = make(clock)
    log.died(**REFUSED)
    log.died(**REFUSED | {"credential": "acme"})
    log.died(**BUSY)
    log.died(**BUSY | {"model": "b"})
    log.died(**BUSY | {"call_type": "reports"})

    assert log.counts() == [1, 1, 1, 1, 1]


def test_a_cause_that_is_quiet_for_an_interval_begins_again(
    clock: Clock, make: Callable[..., Log]
) -> None:
    log = make(clock)
    log.died(**REFUSED)
    clock.now = INTERVAL_S
    log.counter.flush()
    log.died(**REFUSED)

    assert log.counts() == [1, 1]


def test_organisations_without_number_make_few_lines(
    clock: Clock, make: Callable[..., Log]
) -> None:
    """Clients can choose causes; beyond a bound these share one."""
    log = make(clock, causes_max=10)
    for number in range(1_000):
        fields = {"reason": "budget_not_configured", "org_id": f"org {number}"}
        structlog.get_logger().warning("call.rejected", **fields)
    log.counter.flush(all_at_once=True)

    assert len(log.lines) == 12
    assert sum(log.counts()) == 1_000


def test_a_bad_line_says_what_to_do_and_a_good_one_does_not(
    clock: Clock, make: Callable[..., Log]
) -> None:
    log = make(clock)
    structlog.get_logger().warning("workers.lost", worker_ids=[])
    structlog.get_logger().info("call.succeeded", call_id="1")
    log.died(**REFUSED, todo="replace the key")

    assert [line.get("todo") for line in log.lines] == [
        EVENTS["workers.lost"].remedy,
        None,
        "replace the key",
    ]


def test_successes_can_be_left_out(clock: Clock, make: Callable[..., Log]) -> None:
    log = make(clock, left_out={"call.succeeded"})
    structlog.get_logger().info("call.succeeded", call_id="1")
    log.died(**REFUSED)

    assert [line["event"] for line in log.lines] == ["call.died"]


def test_lines_of_others_pass(clock: Clock, make: Callable[..., Log]) -> None:
    log = make(clock)
    structlog.get_logger().warning("what Celery says")
    structlog.get_logger().warning("what Celery says")

    assert len(log.lines) == 2


def test_what_is_counted_is_written_when_the_process_ends(
    clock: Clock, make: Callable[..., Log]
) -> None:
    log = make(clock)
    with log.counter.flushing():
        log.died(**REFUSED)
        log.died(**REFUSED)

    assert log.counts() == [1, 1]
