"""A provider outage, until the first probe: no call dies, and few requests are made and posted."""

from __future__ import annotations

import pytest

from tests.support.deployment import Deployment
from tests.support.outages import PATIENCE_S, all_wait, assert_all_succeeded

pytestmark = pytest.mark.long
CALLS = 100


def test_calls_survive_an_outage_of_their_provider(deployment: Deployment) -> None:
    """Only three attempts meet it; the first probe succeeds. `system/test_outage.py` lasts until after a failed one."""
    handles, worker = all_wait(deployment, CALLS)

    deployment.provider.script([])
    worker.until_it_says("breaker.closed", PATIENCE_S)
    ended = list(deployment.client.as_completed(handles, timeout=PATIENCE_S))

    assert len(ended) == CALLS
    assert_all_succeeded(deployment, CALLS, probes=0)
    assert worker.output().count("breaker.opened") == 1
