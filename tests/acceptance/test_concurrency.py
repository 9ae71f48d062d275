"""How many calls of one organisation run at a time, with real workers: as many as declared, also after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Rule, Simulator, Step
from tests.support.deployment import RICH_NANO_USD, Deployment, until, until_equal
from tests.support.limit_use import CATALOGUE

pytestmark = pytest.mark.long

FEW, MANY = "few", "many"
CALLS = 30
MOST = 3
LATENCY_S = 0.2
MORE = """
[providers.other]
base_url = "{other}"
needs_key = false
unlimited = true

[organisations.orgs.few]
concurrency_max = 3

[[prices]]
provider = "other"
model = "sim-1"
input_usd_per_million = 1
output_usd_per_million = 2
source = "acceptance tests"
as_of = 2026-11-01
"""
LAST = "SELECT max(posted_at) AS at FROM ai_call_log WHERE org_id = :org"
ENDED = "SELECT count(*) FROM llm_call WHERE org_id = :org AND state = 'succeeded'"


@pytest.fixture
def other() -> Iterator[Simulator]:
    """The provider of the organisation without a number."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def deployment(services: DevServers, other: Simulator, tmp_path: Path) -> Iterator[Deployment]:
    """Two organisations, each with a provider of its own, so that each provider counts the calls of one."""
    with Simulator() as provider:
        for simulator in (provider, other):
            simulator.script([Rule(reply=[Step(latency_s=LATENCY_S)])])
        lines = CATALOGUE + MORE.replace("{other}", other.base_url)
        with Deployment(services, provider, tmp_path, catalogue=lines) as made:
            for org in (FEW, MANY):
                made.limit(org, RICH_NANO_USD)
            yield made


def submit(deployment: Deployment) -> None:
    """Many calls of both organisations at once."""
    few = [deployment.request(FEW) for _ in range(CALLS)]
    many = [deployment.request(MANY, provider="other") for _ in range(CALLS)]
    deployment.client.submit_many([*few, *many])


def last_at(deployment: Deployment, org: str) -> object:
    """When the last attempt of an organisation was settled."""
    return deployment.rows(LAST, org=org)[0].at


def test_no_more_calls_run_than_declared(deployment: Deployment, other: Simulator) -> None:
    """All places are used, all calls end, and the other organisation does not wait."""
    deployment.have_workers(2)
    submit(deployment)
    until_equal(0, deployment.open_calls)

    assert deployment.provider.counts().in_flight_max == MOST
    assert other.counts().in_flight_max > MOST
    assert [deployment.rows(ENDED, org=org)[0][0] for org in (FEW, MANY)] == [CALLS, CALLS]
    assert last_at(deployment, MANY) < last_at(deployment, FEW)  # type: ignore[operator]
    deployment.assert_audit_is_clean()


@pytest.mark.timeout(180)
def test_a_killed_worker_takes_no_place_with_it(deployment: Deployment) -> None:
    """Its calls have their places until its lease has expired, and others have them then."""
    killed, _ = deployment.have_workers(2)
    submit(deployment)
    until(lambda: deployment.rows(ENDED, org=FEW)[0][0] >= MOST)
    killed.kill()
    until_equal(0, deployment.open_calls, timeout_s=120)

    assert deployment.provider.counts().in_flight_max == MOST
    assert deployment.rows(ENDED, org=FEW)[0][0] == CALLS
    deployment.assert_audit_is_clean()
