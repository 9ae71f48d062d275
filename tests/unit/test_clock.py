"""The clock of a worker process."""

from __future__ import annotations

import sys
import time

import pytest

from callgate.adapters.system_clock import SystemClock


def test_deadlines_pass_while_the_host_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLOCK_MONOTONIC would stop meanwhile, and a claim would be sent too late afterwards."""
    clocks = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}
    goes_on = getattr(time, clocks[sys.platform])
    monkeypatch.setattr(time, "clock_gettime", lambda clock: 86_400.0 if clock == goes_on else 5.0)

    assert SystemClock().monotonic() == 86_400.0


def test_it_counts_seconds_and_draws_random_numbers() -> None:
    """Compared with the system's own clock."""
    clock = SystemClock()
    before, began = clock.monotonic(), time.monotonic()
    time.sleep(0.01)

    passed_s = clock.monotonic() - before

    assert 0.005 < passed_s <= time.monotonic() - began + 0.005
    assert 0 <= clock.jitter() < 1
