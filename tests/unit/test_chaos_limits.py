"""What a chaos trial says about limits: each broken promise, and what the provider of a trial enforces."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from callgate.domain.limits import Limit, Measure, Source
from devkit.simulator.limits import RateLimiter, cost_of
from devkit.simulator.simulator import ProviderLimits
from tests.chaos.limits import (
    CONCURRENCY,
    FIRST_REFUSED_MAX,
    LATER_REFUSED_MAX,
    MINUTE,
    NO_LIMITS,
    PER_MINUTE,
    TIGHT,
    UNDECLARED,
    LimitsSeen,
    Sent,
    at_one_time,
    is_untested,
    use_of,
    violations_of,
    within,
)

ACCEPTED = tuple(Sent(at_s / 2, is_refused=False) for at_s in range(100))
RIGHT = LimitsSeen(TIGHT, ACCEPTED, CONCURRENCY, waits=1, unblocked_at_s=[])


def refused(number: int, at_s: float, *, is_probe: bool = False) -> list[Sent]:
    """Return that many refusals at one time."""
    return [Sent(at_s, is_refused=True, is_probe=is_probe)] * number


def test_what_is_promised_is_no_violation() -> None:
    """The provider has had as much at one time as it allows."""
    use = use_of(RIGHT)

    assert list(violations_of(RIGHT)) == []
    assert (use.refused, use.late, use.in_flight_max, use.waits) == (0, 0, CONCURRENCY, 1)
    assert use.used_percent == round(100 * 100 * 60 / (PER_MINUTE * 49.5))
    assert use.fullest_percent == round(100 * 20 / within(10, PER_MINUTE))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"in_flight_max": CONCURRENCY + 1}, "4 requests at one time, of 3"),
        ({"sent": [*ACCEPTED, *refused(1, 25)]}, "1 requests were refused, and 0 came late"),
        ({"flow": UNDECLARED}, "no request was refused"),
    ],
)
def test_each_violation_is_reported(change: dict[str, object], words: str) -> None:
    """One planted violation is reported as exactly one."""
    assert list(violations_of(replace(RIGHT, **change))) == [words]  # type: ignore[arg-type]


def test_a_late_request_can_take_the_place_of_another() -> None:
    """Its claim was in an earlier window. As many as were late may be refused, and no more."""
    late = Sent(25, is_refused=False, late_s=1.1)

    excused = replace(RIGHT, sent=[*ACCEPTED, late, *refused(1, 26)])
    not_excused = replace(RIGHT, sent=[*ACCEPTED, late, *refused(2, 26)])

    assert list(violations_of(excused)) == []
    assert list(violations_of(not_excused)) == ["2 requests were refused, and 1 came late"]


@pytest.mark.parametrize(
    ("first", "later", "words"),
    [
        (FIRST_REFUSED_MAX, LATER_REFUSED_MAX, []),
        (
            FIRST_REFUSED_MAX + 1,
            LATER_REFUSED_MAX,
            ["26 requests were refused after 0 blocks, at most 25 may"],
        ),
        (
            FIRST_REFUSED_MAX,
            LATER_REFUSED_MAX + 1,
            ["6 requests were refused after 1 blocks, at most 5 may"],
        ),
    ],
)
def test_an_unknown_limit_costs_few_refusals(first: int, later: int, words: list[str]) -> None:
    """They are counted from the end of one block to the next, without probes."""
    probes = refused(9, 12, is_probe=True)
    sent = [*refused(first, 10), *probes, *refused(later, 30)]

    seen = replace(RIGHT, flow=UNDECLARED, sent=sent, unblocked_at_s=[20.0, 40.0])

    assert list(violations_of(seen)) == words


def test_a_provider_without_limits_breaks_no_promise() -> None:
    """Some trials have none."""
    assert list(violations_of(replace(RIGHT, flow=NO_LIMITS, in_flight_max=99, waits=0))) == []


def test_a_limit_is_tested_if_a_call_of_any_protocol_waits_for_it() -> None:
    """Nobody declares that a provider has none, so that one needs no wait."""
    idle = replace(RIGHT, waits=0)

    assert is_untested([idle, idle])
    assert not is_untested([idle, RIGHT])
    assert not is_untested([replace(idle, flow=UNDECLARED), replace(idle, flow=NO_LIMITS)])


def test_requests_at_one_time_overlap() -> None:
    """One that ends when another begins makes room for it. One may still be in flight at the end."""
    assert at_one_time([]) == 0
    assert at_one_time([(0, 1), (1, 2), (2, math.inf)]) == 1
    assert at_one_time([(0, 3), (1, 2), (1.5, math.inf), (5, 6)]) == 3


def test_a_short_window_refuses_what_a_minute_would() -> None:
    """What is sent as fast as the bucket allows is just accepted; twice as much is not."""
    assert TIGHT.enforced is not None
    assert within(60, PER_MINUTE) == PER_MINUTE
    assert greedy(PER_MINUTE, TIGHT.enforced) == 0
    assert greedy(PER_MINUTE + 20, TIGHT.enforced) > 0
    assert greedy(2 * PER_MINUTE, TIGHT.enforced) > 0


def test_a_minute_of_the_provider_is_a_minute_of_the_catalogue() -> None:
    """One trial declares exactly what is enforced."""
    assert MINUTE.enforced is not None
    assert MINUTE.declared["requests"] == MINUTE.enforced.requests
    assert MINUTE.enforced.window_s == 60
    assert greedy(80, MINUTE.enforced) == 0
    assert greedy(160, MINUTE.enforced) > 0


def greedy(declared: int, enforced: ProviderLimits, seconds: int = 70) -> int:
    """Send as fast as a declared limit allows, those of the first second at its end; return how many are refused."""
    start = datetime(2026, 11, 29, tzinfo=UTC)
    limit = Limit(
        1, "sim", "sim-1", "", Source.DECLARED, Measure.REQUESTS, 60, declared, is_shared=False,
        counts_used=False, level=0, leveled_at=start, changed_at=start,
    )  # fmt: skip
    limit = replace(limit, level=limit.capacity)
    provider = RateLimiter(enforced.model_copy(update={"concurrency": None}))
    for step in range(seconds * 100):
        now = start + timedelta(seconds=step / 100)
        limit = limit.at(now)
        while limit.wait_s(1, now) == 0:
            limit = limit.taken(1, now)
            provider.arrived("", "sim-1", cost_of(1, 1), max(1.0, step / 100))
    return provider.counts().refused
