"""
A tenant keeps transactions open, around a submission to its own call and around a cancellation.

Its login may do both, and locks its rows as long as it likes. Other organisations' calls run meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.client import Handle
from callgate.domain.calls import Bodies, CallState
from callgate.domain.ledger import NewSubmission, SubmitOutcome
from callgate.domain.reports import EndReason
from devkit.simulator.simulator import Kind, Match, Rule, Step
from tests.support.deployment import Deployment, Process, until_equal
from tests.support.logins import a_client
from tests.support.open_transaction import OpenTransaction
from tests.support.other_tenants import assert_others_succeed
from tests.support.short_leases import LEASE_S, PATIENCE_S, have_workers, in_flight

pytestmark = pytest.mark.long
CALLS = 60
OTHERS = 150
"""Calls of the honest organisation whose rate is measured."""


@pytest.fixture(autouse=True)
def no_worker(deployment: Deployment) -> Iterator[None]:
    """No shared worker: each test starts its own after it has locked calls."""
    yield
    deployment.stop_workers()


@pytest.fixture
def hostile(deployment: Deployment) -> tuple[str, str]:
    """The names of two hostile organisations, each with its own login."""
    return deployment.org(), deployment.org()


@contextmanager
def open_transaction(deployment: Deployment, org: str) -> Iterator[OpenTransaction]:
    """A session of a hostile login in an open transaction, until the block ends."""
    with (
        closing(PostgresSession(deployment.services.database_url)) as owner,
        a_client(owner, org) as url,
    ):
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            # They are defaults, and this login unsets them.
            for limit in ("idle_in_transaction_session_timeout", "statement_timeout"):
                connection.execute(text(f"SET {limit} = 0"))
            connection.commit()
            with connection.begin():
                yield OpenTransaction(connection)


@contextmanager
def joined(deployment: Deployment, org: str, handles: Sequence[Handle]) -> Iterator[None]:
    """Join own calls, and keep the transaction open."""
    views = deployment.client.ledger.read([h.key for h in handles], Bodies.REQUEST)
    again = [
        NewSubmission(
            submission_id=uuid4(), org_id=org, call_id=v.key.call_id, input_hash=v.input_hash,
            call_type=v.call_type, provider=v.provider, model=v.model,
            input_token_bound=v.input_token_bound, request=v.request or b"",
        )
        for v in views if v is not None
    ]  # fmt: skip
    with open_transaction(deployment, org) as session:
        answers = PostgresLedger(session).submit(again)
        assert {a.outcome for a in answers} == {SubmitOutcome.JOINED}
        yield


@contextmanager
def cancelled(deployment: Deployment, org: str, handles: Sequence[Handle]) -> Iterator[None]:
    """Cancel own calls, keep the transaction open, and roll it back at the end."""
    with open_transaction(deployment, org) as session:
        keys = [h.key for h in handles]
        ended = PostgresOperations(session).end(keys, code=EndReason.CANCELLED, message="or not")
        assert len(ended) == len(keys)
        yield
        session.connection.rollback()


def submit(deployment: Deployment, org: str, count: int, **fields: str) -> list[Handle]:
    """Submit different calls."""
    return deployment.client.submit_many([deployment.request(org, **fields) for _ in range(count)])


def rate_of_others(deployment: Deployment) -> float:
    """Calls per second of an honest organisation."""
    began = time.monotonic()
    handles = submit(deployment, deployment.org(), OTHERS)
    assert len(list(deployment.client.as_completed(handles, timeout=40))) == OTHERS
    return OTHERS / (time.monotonic() - began)


def figure(name: str, *rates: float) -> None:
    """Print a measurement, for `pytest -s`."""
    print(f"\n{name}: {' -> '.join(f'{rate:.0f}/s' for rate in rates)}", end=" ")  # noqa: T201


@pytest.mark.parametrize("count", [1, CALLS])
def test_locks_on_queued_calls_delay_no_other_call(
    deployment: Deployment,
    worker: Callable[..., Process],
    hostile: tuple[str, str],
    count: int,
) -> None:
    """By a submission and by a cancellation. The locked calls run as soon as they are free."""
    calls = [submit(deployment, org, count) for org in hostile]
    with joined(deployment, hostile[0], calls[0]), cancelled(deployment, hostile[1], calls[1]):
        worker()
        # A worker's first calls are its slowest, and no measure of what the locks cost.
        assert_others_succeed(deployment, 5)
        during = rate_of_others(deployment)
        assert {deployment.client.handle(h.task_id).state for h in calls[0]} == {CallState.QUEUED}
    done = list(deployment.client.as_completed([*calls[0], *calls[1]], timeout=60))
    before = rate_of_others(deployment)

    figure(f"{2 * count} queued calls held", before, during)
    assert len(done) == 2 * count
    assert during > before / 3
    for org in hostile:
        assert len(deployment.attempts(org)) == count


def test_locks_on_running_calls_delay_no_other_settlement(
    deployment: Deployment, worker: Callable[..., Process], hostile: tuple[str, str]
) -> None:
    """The locked calls are posted once, by usage, when they are free."""
    org = hostile[0]
    worker()
    before = rate_of_others(deployment)
    deployment.provider.script([Rule(match=Match(text=org), reply=[Step(latency_s=2)])])
    handles = deployment.client.submit_many(
        [deployment.request(org, f"call {n} of {org}") for n in range(CALLS)]
    )
    until_equal(CALLS, lambda: len(deployment.attempts(org)))
    with joined(deployment, org, handles):
        until_equal({"answered"}, lambda: {row.status for row in deployment.attempts(org)})
        during = rate_of_others(deployment)
        assert {row.status for row in deployment.attempts(org)} == {"answered"}
    assert len(list(deployment.client.as_completed(handles, timeout=60))) == CALLS

    figure(f"{CALLS} answered calls held", before, during)
    assert during > before / 3
    rows = deployment.attempts(org)
    assert [row.status for row in rows] == ["succeeded"] * CALLS
    assert all(0 < row.posted_nano_usd < row.hold_nano_usd for row in rows)


def test_a_lock_on_a_lost_call_delays_no_other_recovery(
    deployment: Deployment, hostile: tuple[str, str]
) -> None:
    """Other calls of the killed worker are recovered within seconds; the locked one when it is free."""
    others = deployment.org()
    deployment.provider.script([Rule(reply=[Step(kind=Kind.HANG)])])
    have_workers(deployment, 1)
    (held,) = submit(deployment, hostile[0], 1, call_type="patient")
    lost = submit(deployment, others, 5, call_type="patient")
    in_flight(deployment, 6)
    worker, _ = have_workers(deployment, 2)
    deployment.provider.script([Rule(reply=[Step()])])

    with joined(deployment, hostile[0], [held]):
        worker.kill()
        killed_at = time.monotonic()
        done = list(deployment.client.as_completed(lost, timeout=PATIENCE_S))
        seconds = time.monotonic() - killed_at
        assert [h.get(timeout=5).attempts for h in done] == [2] * 5
        assert [row.status for row in deployment.attempts(hostile[0])] == ["dispatched"]
    free_at = time.monotonic()

    assert held.get(timeout=PATIENCE_S).attempts == 2
    print(  # noqa: T201
        f"\n5 calls moved on {seconds:.1f} s after kill -9, the held one"
        f" {time.monotonic() - free_at:.1f} s after it was free (lease {LEASE_S} s)",
        end=" ",
    )
    assert len(deployment.attempts(others)) == 10
