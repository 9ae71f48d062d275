"""Pauses hold on all workers within a second: real worker processes, real servers, a simulated provider."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from callgate.domain.calls import CallState
from callgate.domain.errors import OrganisationFrozen
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.handle import Handle
from devkit.simulator.simulator import Rule, Step
from tests.support.deployment import Deployment, until

PATIENCE_S = 30.0
BY = By("ann", "they leak")


@contextmanager
def submitting(deployment: Deployment, org: str) -> Iterator[list[Handle]]:
    """Submit a call every 20 ms, until the block ends."""
    handles: list[Handle] = []
    is_over = threading.Event()

    def submit() -> None:
        while not is_over.wait(0.02):
            handles.append(deployment.client.submit(deployment.request(org)))

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield handles
    finally:
        is_over.set()
        thread.join()


def test_a_pause_stops_all_workers_within_a_second(deployment: Deployment) -> None:
    """Calls come all the time. What is in flight ends; what waits is sent after the pause, each call once."""
    deployment.provider.script([Rule(reply=(Step(latency_s=0.3),))])
    deployment.have_workers(2)
    org = deployment.org()
    with submitting(deployment, org) as handles:
        until(lambda: deployment.provider.counts().total > 10)
        deployment.client.operations.pause(PauseKey(provider="sim"), by=BY)
        time.sleep(1)
        sent = deployment.provider.counts().total
        time.sleep(2)
        assert deployment.provider.counts().total == sent
    count = len(handles)
    assert sent < count - 50

    def states() -> list[CallState]:
        return sorted({handle.state for handle in handles})

    until(lambda: states() == [CallState.SUCCEEDED, CallState.WAITING])
    (pause,) = deployment.client.operations.pauses()
    assert pause.waiting == count - sent

    deployment.client.operations.resume(PauseKey(provider="sim"), by=BY)

    assert {handle.get(timeout=PATIENCE_S).text for handle in handles} == {"ok"}
    assert deployment.provider.counts().total == count


def test_a_frozen_organisation_is_refused_and_waits(deployment: Deployment) -> None:
    """Another organisation notices nothing."""
    deployment.stop_workers()
    org, other = deployment.org(), deployment.org()
    freeze = PauseKey(org_id=org, is_freeze=True)
    handle = deployment.client.submit(deployment.request(org))
    deployment.client.operations.pause(freeze, by=BY)
    deployment.ensure_worker()

    with pytest.raises(OrganisationFrozen, match=f"{org} is frozen"):
        deployment.client.submit_many([deployment.request(org)])
    assert deployment.client.submit(deployment.request(other)).get(timeout=PATIENCE_S).text == "ok"
    until(lambda: handle.state is CallState.WAITING)

    deployment.client.operations.resume(freeze, by=BY)
    assert handle.get(timeout=PATIENCE_S).text == "ok"
