"""The figures of runs against a limited provider."""

from __future__ import annotations

from collections import Counter

import pytest

from devkit.simulator.simulator import Arrival, ProviderLimits
from tests.benchmarks.limits import jain
from tests.support.limit_use import LimitUse, share_used

LIMITS = ProviderLimits(requests=60)


def arrivals(times_s: list[float], refused_s: tuple[float, ...] = ()) -> tuple[Arrival, ...]:
    """Return arrivals in order of time."""
    both = [*((at_s, True) for at_s in times_s), *((at_s, False) for at_s in refused_s)]
    return tuple(Arrival(at_s, is_accepted, 1, 1) for at_s, is_accepted in sorted(both))


def test_requests_at_the_pace_of_the_limit_use_all_of_it() -> None:
    at_pace = arrivals([100.0 + number for number in range(31)])
    at_half_of_it = arrivals([100.0 + number * 2 for number in range(31)])

    assert share_used(at_pace, LIMITS) == pytest.approx(1)
    assert share_used(at_half_of_it, LIMITS) == pytest.approx(0.5)


def test_the_edges_of_a_run_can_be_left_out() -> None:
    """A burst at the beginning is not the steady state."""
    burst = arrivals([100.0] * 50 + [100.0 + number for number in range(31)])

    assert share_used(burst, LIMITS) > 2
    assert share_used(burst, LIMITS, edge_s=5.0) == pytest.approx(1)


def test_refused_requests_use_nothing() -> None:
    run = arrivals([100.0 + number for number in range(31)], refused_s=(100.5, 112.0, 119.0))

    assert share_used(run, LIMITS) == pytest.approx(1)
    use = LimitUse(30.0, Counter(succeeded=31), LIMITS, run)
    assert use.refused == 3
    assert use.refusals_by(10.0) == [1, 2, 0, 0]
    assert str(use) == "30.0 s, 31 of 31 succeeded, 0 dead, 3 refusals, 100% of the limit used"


def test_a_run_without_requests_has_used_nothing() -> None:
    assert share_used((), LIMITS) == 0
    assert LimitUse(0.0, Counter(), LIMITS, ()).refusals_by(1.0) == []


def test_fairness_is_one_for_equals_and_small_for_a_single_winner() -> None:
    assert jain([7, 7, 7, 7]) == 1
    assert jain([7, 0, 0, 0]) == 0.25
    assert jain([0, 0]) == 0
