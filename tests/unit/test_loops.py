"""The loops of a worker: no error ends one, and each can be woken or cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable
from tests.support.waiting import until_async
from worker import loops, redrives
from worker.alerts import AlertLoop
from worker.loops import SharedLoops
from worker.redrives import RedriveLoop
from worker.wakeable_sleep import WakeableSleep

pytestmark = pytest.mark.long

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMEOUT_S = 20.0
NAMES = (
    "recovery",
    "delivery",
    "retention",
    "sums",
    "limits",
    "fingerprints",
    "figures",
    "alerts",
    "redrives",
    "consumers",
)


class Steps:
    """The services of all loops: each step raises its error, once per loop, then succeeds."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.counts = dict.fromkeys(NAMES, 0)
        self.swept: list[datetime] = []
        self.taken = 0

    def step(self, name: str, result: object) -> Callable[..., Any]:
        def run(*_: object) -> object:
            self.counts[name] += 1
            if self.error is not None and self.counts[name] == 1:
                raise self.error
            return result

        return run

    def loops(self, *, interval_s: float = 0.01) -> SharedLoops:
        return SharedLoops(
            options=SimpleNamespace(
                due_interval_s=interval_s,
                sweep_interval_s=60,
                maintenance_interval_s=interval_s,
                metrics_interval_s=interval_s,
            ),  # type: ignore[arg-type]
            app=None,
            queue=SimpleNamespace(publish_sweep=self.swept.append),  # type: ignore[arg-type]
            recovery=SimpleNamespace(run=self.step("recovery", (NOW, self.taken))),  # type: ignore[arg-type]
            delivery=SimpleNamespace(run=self.step("delivery", 0)),  # type: ignore[arg-type]
            retention=SimpleNamespace(run=self.step("retention", None)),  # type: ignore[arg-type]
            sums=SimpleNamespace(fold=self.step("sums", True), prove=lambda: None),  # type: ignore[arg-type]
            limits=SimpleNamespace(run=self.step("limits", None)),  # type: ignore[arg-type]
            figures=SimpleNamespace(run=self.step("figures", None)),  # type: ignore[arg-type]
            fingerprints=SimpleNamespace(run=self.step("fingerprints", None)),  # type: ignore[arg-type]
            redrives=RedriveLoop(SimpleNamespace(run=self.step("redrives", False))),  # type: ignore[arg-type]
            alerts=AlertLoop(
                SimpleNamespace(look=self.step("alerts", None), take=list),  # type: ignore[arg-type]
                None,
                interval_s,
            ),
            recovery_pause=WakeableSleep(),
        )


async def run_until(shared: SharedLoops, is_done: Callable[[], bool]) -> None:
    """Run all loops until a condition holds, then cancel them."""
    tasks = [asyncio.create_task(coroutine) for coroutine in shared.coroutines()]
    await until_async(lambda: is_done() or any(task.done() for task in tasks), TIMEOUT_S)
    assert not any(task.done() for task in tasks), "a loop has ended"
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    "error", [LedgerUnavailable("away"), BrokerUnavailable("away"), RuntimeError("unforeseen")]
)
def test_no_error_ends_a_loop(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    steps = Steps(error)
    monkeypatch.setattr(loops, "consumers", steps.step("consumers", []))
    monkeypatch.setattr(loops, "CONSUMERS_INTERVAL_S", 0.01)
    monkeypatch.setattr(redrives, "PAUSE_S", 0.01)
    monkeypatch.setattr(loops, "FOLD_INTERVAL_S", 0.01)
    monkeypatch.setattr(loops, "MORE_SUMS_INTERVAL_S", 0.01)

    with capture_logs() as logged:
        asyncio.run(run_until(steps.loops(), lambda: min(steps.counts.values()) >= 3))

    assert len(logged) == len(NAMES)


def test_a_sweep_is_published_once_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    monkeypatch.setattr(loops, "consumers", steps.step("consumers", []))

    asyncio.run(run_until(steps.loops(), lambda: steps.counts["recovery"] >= 5))

    assert steps.swept == [NOW]


def test_a_wake_ends_the_pause_of_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    monkeypatch.setattr(loops, "consumers", steps.step("consumers", []))
    shared = steps.loops(interval_s=3_600)

    def is_done() -> bool:
        if steps.counts["recovery"]:
            shared.recovery_pause.wake()
        return steps.counts["recovery"] >= 3

    asyncio.run(run_until(shared, is_done))

    assert steps.counts["delivery"] == 1


def test_a_foreign_consumer_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        SimpleNamespace(name="ours@host", queues=("callgate.call",), is_ours=True),
        SimpleNamespace(name="theirs@host", queues=("callgate.call",), is_ours=False),
    ]
    steps = Steps()
    monkeypatch.setattr(loops, "consumers", steps.step("consumers", found))

    with capture_logs() as logged:
        asyncio.run(run_until(steps.loops(), lambda: steps.counts["consumers"] >= 1))

    assert [(line["event"], line["worker"]) for line in logged] == [
        ("foreign_consumer.found", "theirs@host")
    ]
