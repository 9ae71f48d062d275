"""
Organisations share the slots of real workers. Each test prints its figures.

Without limits of a provider, slots are what is scarce. `tests/contract/test_slots_contract.py` has the rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from devkit.simulator.simulator import Match, Rule, Step, Uniform
from tests.support.deployment import Deployment, Process
from tests.support.waiting import until

SLOTS = 48
MANY, FEW = 1_200, 20
OVERTAKEN_MAX = 3
"""Claims that were under way when the others came, and pairs of statements that did not see each other."""

SHORT_S, LONG_S = 1.0, 5.0
SETTLES_S, MEASURED_S = 10.0, 20.0
JAIN_MIN = 0.9
"""A slot that a short call leaves is taken by a long one now and then, and not given back for five seconds."""
USED_MIN = 0.85
"""Of the slots: between two calls a slot waits for a claim, and for a machine with other work."""

ATTEMPTS = """SELECT started_at, coalesce(finished_at, now()) AS finished_at FROM ai_call_log
 WHERE org_id = :org ORDER BY started_at"""
LIVE = "SELECT count(*) AS count FROM worker_lease WHERE expires_at > now()"
RUNNING = "SELECT count(*) AS count FROM llm_call WHERE org_id = :org AND state = 'running'"

pytestmark = pytest.mark.timeout(240)

Worker = Callable[..., Process]
Say = Callable[..., None]


@pytest.fixture
def say(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints a line about this test, also when pytest captures the output."""

    def line(*words: object) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}:", *words)  # noqa: T201

    return line


@dataclass(frozen=True)
class Load:
    """Calls of one organisation that all take about as long."""

    deployment: Deployment
    org: str

    @classmethod
    def of(cls, deployment: Deployment, name: str, calls: int) -> Load:
        """Submit them; the provider recognises them by this name."""
        load = cls(deployment, deployment.org())
        requests = [deployment.request(load.org, f"{name} {load.org} {n}") for n in range(calls)]
        for start in range(0, calls, 500):
            deployment.client.submit_many(requests[start : start + 500])
        return load

    def running(self) -> int:
        """How many run now."""
        return int(self.deployment.rows(RUNNING, org=self.org)[0].count)

    def starts(self) -> list[datetime]:
        """When its attempts were claimed."""
        return [row.started_at for row in self.deployment.rows(ATTEMPTS, org=self.org)]

    def slots_within(self, begin: datetime, end: datetime) -> float:
        """How many slots it had on average."""
        rows = self.deployment.rows(ATTEMPTS, org=self.org)
        used = [min(row.finished_at, end) - max(row.started_at, begin) for row in rows]
        return sum((u for u in used if u > timedelta()), timedelta()) / (end - begin)


@pytest.fixture(autouse=True)
def _no_slots_of_others(deployment: Deployment) -> None:
    """The worker of the test before was killed. Its slots count until its lease expires."""
    until(lambda: deployment.rows(LIVE)[0].count == 0, timeout_s=60)


def now(deployment: Deployment) -> datetime:
    """The time of Postgres."""
    at: datetime = deployment.rows("SELECT now() AS at")[0].at
    return at


def test_a_few_calls_take_the_next_slots(deployment: Deployment, worker: Worker, say: Say) -> None:
    """Another organisation holds all slots with long calls, and has a thousand more."""
    long = Step(latency_s=Uniform(low_s=3.0, high_s=6.0))
    deployment.provider.script([Rule(match=Match(text="long"), reply=[long]), Rule(reply=[Step()])])
    worker(CALLGATE_WORKER__CONCURRENCY=str(SLOTS))
    many = Load.of(deployment, "long", MANY)
    until(lambda: many.running() >= SLOTS - 1, timeout_s=30)

    few = Load.of(deployment, "brief", FEW)
    began = now(deployment)
    until(lambda: len(few.starts()) == FEW, timeout_s=60)

    last = few.starts()[-1]
    overtaken = [at for at in many.starts() if began < at < last]
    say(f"the last of {FEW} began after {(last - began).total_seconds():.1f} s,")
    say(f"{len(overtaken)} of {MANY} long calls began before it")
    deployment.end_open_calls()
    assert len(overtaken) <= OVERTAKEN_MAX


def test_slots_are_shared_whatever_calls_take(
    deployment: Deployment, worker: Worker, say: Say
) -> None:
    """One organisation's calls take five times as long as the other's."""
    rules = [("long", LONG_S), ("short", SHORT_S)]
    deployment.provider.script(
        [Rule(match=Match(text=t), reply=[Step(latency_s=s)]) for t, s in rules]
    )
    worker(CALLGATE_WORKER__CONCURRENCY="20")
    loads = [Load.of(deployment, "long", 400), Load.of(deployment, "short", 1_000)]
    time.sleep(SETTLES_S)
    begin = now(deployment)
    time.sleep(MEASURED_S)
    slots = [load.slots_within(begin, now(deployment)) for load in loads]

    jain = sum(slots) ** 2 / (len(slots) * sum(s**2 for s in slots))
    say(f"{slots[0]:.1f} and {slots[1]:.1f} of 20 slots, fairness index {jain:.3f}")
    deployment.end_open_calls()
    assert jain >= JAIN_MIN
    assert sum(slots) >= USED_MIN * 20


def test_one_organisation_uses_all_slots(deployment: Deployment, worker: Worker, say: Say) -> None:
    """Nobody else wants them."""
    deployment.provider.script([Rule(reply=[Step(latency_s=SHORT_S)])])
    worker(CALLGATE_WORKER__CONCURRENCY="20")
    load = Load.of(deployment, "short", 1_000)
    time.sleep(2)
    begin = now(deployment)
    time.sleep(MEASURED_S / 2)
    slots = load.slots_within(begin, now(deployment))

    say(f"{slots:.1f} of 20 slots")
    deployment.end_open_calls()
    assert slots >= USED_MIN * 20
