"""A login that fills the server's table of locks: it stops everybody until its session ends, and costs nobody money."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.session import PostgresSession
from devkit.simulator.simulator import Rule, Step
from tests.support.deployment import Deployment, Process, until, until_equal
from tests.support.logins import a_client

CALLS = 20
LOCKS = "SELECT count(pg_advisory_lock(n)) FROM generate_series(:first, :first + 999) n"
LOCKS_MAX = 1_000_000


def take_locks(hostile: Connection) -> None:
    """Take advisory locks for as long as the server has room for them."""
    for first in range(0, LOCKS_MAX, 1000):
        hostile.execute(text(LOCKS), {"first": first})


def is_served(deployment: Deployment) -> bool:
    """Whether the owner can connect and write."""
    try:
        deployment.rows("SELECT pg_current_xact_id()")
    except OperationalError:
        return False
    return True


def test_a_full_table_of_locks_has_no_call_paid_twice(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """Answers that came meanwhile are recorded when there is room again, and posted by usage; no worker dies."""
    process = worker()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(latency_s=2)])])
    with (
        closing(PostgresSession(deployment.services.database_url)) as owner,
        a_client(owner, deployment.org()) as url,
    ):
        handles = deployment.client.submit_many([deployment.request(org) for _ in range(CALLS)])
        until_equal(CALLS, lambda: len(deployment.attempts(org)))
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as hostile:
            with pytest.raises(OperationalError, match="out of shared memory"):
                take_locks(hostile)
            until(lambda: "record.deferred" in process.output())
        # The server takes a moment to give so many locks back.
        until(lambda: is_served(deployment))

    assert len(list(deployment.client.as_completed(handles, timeout=40))) == CALLS
    assert process.is_alive()
    rows = deployment.attempts(org)
    assert [(row.status, row.attempt) for row in rows] == [("succeeded", 1)] * CALLS
    assert all(0 < row.posted_nano_usd < row.hold_nano_usd for row in rows)
