"""
Recovery is quick: a dead worker is noticed by its lease, and who waits for headroom is woken when it frees.

The calls here may take a minute each, so nothing that is seen within seconds can be due to a deadline.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from callgate.client import Handle
from devkit.simulator.simulator import Kind, Match, Rule, Step
from tests.support.deployment import Deployment, Process, until, until_equal
from tests.support.short_leases import (
    IN_FLIGHT_MAX,
    LEASE_S,
    PATIENCE_S,
    have_workers,
    in_flight,
)


def submit(deployment: Deployment, org: str, count: int, *, content: str = "") -> list[Handle]:
    """Submit different calls that may take long."""
    return deployment.client.submit_many(
        [
            deployment.request(org, f"{content} {n} of {org}", call_type="patient")
            for n in range(count)
        ]
    )


def all_done(deployment: Deployment, handles: list[Handle]) -> Counter[int]:
    """Wait for every result; return the number of attempts."""
    done = list(deployment.client.as_completed(handles, timeout=PATIENCE_S))
    assert len(done) == len(handles)
    return Counter(handle.get(timeout=PATIENCE_S).attempts for handle in done)


def figure(name: str, seconds: float) -> None:
    """Print a run's figures, for `pytest -s`."""
    print(f"\n{name}: {seconds:.2f} s", end=" ")  # noqa: T201


def test_the_calls_of_a_killed_worker_are_recovered_within_seconds(deployment: Deployment) -> None:
    """Killed with twenty in flight: each costs one attempt, and another worker makes all calls."""
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(kind=Kind.HANG)])])
    have_workers(deployment, 1)
    handles = submit(deployment, org, IN_FLIGHT_MAX)
    in_flight(deployment, IN_FLIGHT_MAX)
    killed, _ = have_workers(deployment, 2)
    deployment.provider.script([Rule(reply=[Step()])])

    killed.kill()
    killed_at = time.monotonic()
    attempts = all_done(deployment, handles)

    figure(
        f"{IN_FLIGHT_MAX} calls made after kill -9, lease {LEASE_S} s", time.monotonic() - killed_at
    )
    assert attempts == {2: IN_FLIGHT_MAX}
    rows = deployment.attempts(org)
    assert Counter(row.status for row in rows) == dict.fromkeys(
        ("unknown", "succeeded"), IN_FLIGHT_MAX
    )
    lost = [row for row in rows if row.status == "unknown"]
    assert {json.loads(row.error_json)["code"] for row in lost} == {"worker_lost"}
    assert deployment.provider.counts().repeated == {}


def test_a_worker_stopped_past_its_lease_sends_nothing_and_posts_once(
    deployment: Deployment,
) -> None:
    """Four requests were sent and one call was only reserved. Another worker takes over; then the first continues."""
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(latency_s=1.5 * LEASE_S)])])
    (zombie,) = have_workers(deployment, 1)
    sent = submit(deployment, org, 4, content="sent")
    in_flight(deployment, 4)
    reserved = _stop_between_claim_and_request(deployment, zombie, org)
    deployment.provider.script([Rule(reply=[Step()])])

    have_workers(deployment, 2)
    attempts = all_done(deployment, [*sent, reserved])
    old = {str(row.attempt_id) for row in deployment.attempts(org) if row.status == "unknown"}
    before = deployment.provider.counts()
    zombie.send(signal.SIGCONT)
    _until_no_attempt_is_unknown(deployment, org)

    after = deployment.provider.counts()
    assert attempts == {2: 5}
    assert len(old) == 5
    assert (before.total, after.total, after.repeated) == (9, 9, {})
    rows = {str(row.attempt_id): row for row in deployment.attempts(org)}
    late = [rows[attempt_id] for attempt_id in old]
    assert Counter(row.status for row in late) == {"succeeded": 4, "failed": 1}
    assert [row.posted_nano_usd for row in late if row.status == "failed"] == [0]
    assert all(0 < row.posted_nano_usd < row.hold_nano_usd for row in late if row.reply)


def test_an_outage_of_postgres_makes_nothing_unknown(deployment: Deployment) -> None:
    """Longer than a lease, with calls in flight on two workers: no answer is lost or requested twice."""
    org = deployment.org()
    long = Rule(match=Match(text="long"), reply=[Step(latency_s=2 * LEASE_S)])
    deployment.provider.script([long, Rule(reply=[Step(latency_s=LEASE_S / 2)])])
    have_workers(deployment, 2)
    handles = submit(deployment, org, IN_FLIGHT_MAX, content="long")
    handles += submit(deployment, org, IN_FLIGHT_MAX, content="short")
    in_flight(deployment, 2 * IN_FLIGHT_MAX)

    with _stopped_postgres(deployment):
        time.sleep(1.3 * LEASE_S)

    assert all_done(deployment, handles) == {1: 2 * IN_FLIGHT_MAX}
    rows = deployment.attempts(org)
    assert Counter(row.status for row in rows) == {"succeeded": 2 * IN_FLIGHT_MAX}
    assert len({row.worker_id.partition("/")[0] for row in rows}) == 2
    assert deployment.provider.counts().total == 2 * IN_FLIGHT_MAX


def test_a_stopping_worker_releases_its_lease(deployment: Deployment) -> None:
    """After its drain, so that no one waits for it to expire."""
    (worker,) = have_workers(deployment, 1)
    lease = "SELECT count(*) FROM worker_lease WHERE worker_id LIKE :process"
    process = f"%:{worker.pid}:%"
    until_equal(1, lambda: deployment.rows(lease, process=process)[0][0])

    assert worker.stop() == 0

    assert deployment.rows(lease, process=process)[0][0] == 0


def test_freed_headroom_releases_the_waiting_call(deployment: Deployment) -> None:
    """Long before its timer, which has grown while it waited."""
    have_workers(deployment, 1)
    org = deployment.org(0)
    requests = [deployment.request(org, call_type="patient") for _ in range(2)]
    deployment.limit(org, max(map(deployment.hold_of, requests)) * 3 // 2)
    deployment.provider.script([Rule(reply=[Step(latency_s=2.0)])])
    handles = deployment.client.submit_many(requests)
    timer = """UPDATE llm_call SET due_at = now() + interval '30 s'
                WHERE org_id = :org AND state = 'waiting' RETURNING call_id"""
    until(lambda: deployment.rows(timer, org=org))

    all_done(deployment, handles)

    first, second = deployment.attempts(org)
    waited_s = (second.started_at - first.posted_at).total_seconds()
    figure("from posting to the woken call's claim", waited_s)
    assert 0 <= waited_s < 15


@contextmanager
def _stopped_postgres(deployment: Deployment) -> Iterator[None]:
    deployment.services.postgres.suspend()
    try:
        yield
    finally:
        deployment.services.postgres.resume()


RESERVE_WAITS = """SELECT count(*) FROM pg_stat_activity
 WHERE wait_event_type = 'Lock' AND query LIKE '%callgate_reserve_v2%'"""
DISPATCHED = """SELECT count(*) FROM ai_call_log
 WHERE call_id = :call_id AND generation = 1 AND status = 'dispatched'"""


def _stop_between_claim_and_request(deployment: Deployment, worker: Process, org: str) -> Handle:
    """Stop a worker while its claim waits in Postgres: the claim is committed, and the worker does not see it."""
    handle: Handle | None = None
    for _ in range(10):
        with deployment.locked("SELECT 1 FROM budget WHERE org_id = :org FOR UPDATE", org=org):
            handle = handle or submit(deployment, org, 1, content="reserved")[0]
            until(lambda: deployment.rows(RESERVE_WAITS)[0][0])
            worker.freeze()
        call_id = handle.key.call_id
        with suppress(AssertionError):
            until(lambda: deployment.rows(DISPATCHED, call_id=call_id)[0][0], 2.0)  # noqa: B023
            return handle
        # Its patience with the lock had ended just before.
        worker.send(signal.SIGCONT)
    raise AssertionError("the worker never stood still at the right moment")


def _until_no_attempt_is_unknown(deployment: Deployment, org: str) -> None:
    """Wait until every attempt has its final status."""
    until(
        lambda: all(row.status != "unknown" for row in deployment.attempts(org)),
        PATIENCE_S,
        lambda: repr([(row.attempt_id, row.status) for row in deployment.attempts(org)]),
    )
