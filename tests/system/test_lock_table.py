"""A login that fills the server's table of locks, again and again: its sessions are ended, and others' calls go on."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.errors import LedgerUnavailable
from devkit.simulator.simulator import Rule, Step
from tests.support.deployment import Deployment, Process, until
from tests.support.logins import a_client, name_of

ATTACK_S = 8.0
CALLS = 40
LIMITS = (
    "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; SET lock_timeout = 0"
)
ADVISORY = "SELECT count(pg_advisory_lock(n)) FROM generate_series(1, 1000000) n"
SAVEPOINTS = "CREATE TEMP TABLE written (n int); BEGIN; " + 50_000 * (
    "SAVEPOINT s; INSERT INTO written VALUES (1); "
)
"""None is released, so that each keeps a lock on its own transaction id."""
TABLES = """DO $$ BEGIN
    FOR n IN 1 .. 1000000 LOOP
        BEGIN
            EXECUTE format('CREATE TEMP TABLE t%s (n int)', n);
        EXCEPTION WHEN out_of_memory THEN PERFORM pg_sleep(60);
        END;
    END LOOP;
END $$"""


class Attack(threading.Thread):
    """Fills the table, keeps it full until the session is ended, and begins anew."""

    def __init__(self, url: str, fill_sql: str) -> None:
        super().__init__(name="attack", daemon=True)
        self._dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._fill_sql = fill_sql
        self.ended_after: list[float] = []
        """Of each session: how long it lived after it had begun to fill the table."""
        self.longest_full_s = 0.0
        self.is_over = threading.Event()

    def run(self) -> None:
        """Go on until it is over."""
        while not self.is_over.is_set():
            try:
                with closing(psycopg2.connect(self._dsn)) as session:
                    self._fill(session)
            except psycopg2.OperationalError:
                # Its own session is no exception: nobody can connect while the table is full.
                time.sleep(0.01)

    def _fill(self, session: psycopg2.extensions.connection) -> None:
        session.autocommit = True
        began_at = time.monotonic()
        with session.cursor() as cursor:
            cursor.execute(LIMITS)
            try:
                cursor.execute(self._fill_sql)
            except psycopg2.errors.OutOfMemory:
                self._hold(session)
            except psycopg2.Error:
                pass
        self.ended_after.append(time.monotonic() - began_at)

    def _hold(self, session: psycopg2.extensions.connection) -> None:
        """Keep what was taken before the error."""
        full_at = time.monotonic()
        while not self.is_over.is_set() and not session.closed:
            try:
                with session.cursor() as cursor:
                    cursor.execute("SELECT 1")
            except psycopg2.errors.InFailedSqlTransaction:
                # What its savepoints hold, it holds until it rolls back.
                pass
            except psycopg2.Error:
                break
            time.sleep(0.01)
        self.longest_full_s = max(self.longest_full_s, time.monotonic() - full_at)


@contextmanager
def attacked(deployment: Deployment, fill_sql: str) -> Iterator[tuple[Attack, str]]:
    """A hostile login at work; its name."""
    with (
        closing(PostgresSession(deployment.services.database_url)) as owner,
        a_client(owner, deployment.org()) as url,
    ):
        attack = Attack(url, fill_sql)
        attack.start()
        try:
            yield attack, name_of(url)
        finally:
            attack.is_over.set()
            attack.join(10)
            until(lambda: is_served(deployment))


def is_served(deployment: Deployment) -> bool:
    """Whether the owner can connect and write."""
    try:
        deployment.rows("SELECT pg_current_xact_id()")
    except OperationalError:
        return False
    return True


def states_of(deployment: Deployment, org: str) -> set[str]:
    """In which states the calls are; none where there is no room for a lock."""
    try:
        rows = deployment.rows("SELECT DISTINCT state FROM llm_call WHERE org_id = :org", org=org)
    except OperationalError:
        return set()
    return {row.state for row in rows}


def submit_patiently(deployment: Deployment, org: str) -> int:
    """Submit a call, again where there was no room for a lock: that makes no second one. How often it had to."""
    request = deployment.request(org)
    give_up_at = time.monotonic() + 20
    for refused in itertools.count():
        try:
            deployment.client.submit(request)
            return refused
        except LedgerUnavailable:
            assert time.monotonic() < give_up_at, "nobody else is served"
            time.sleep(0.05)
    raise AssertionError("unreachable")


@pytest.mark.parametrize(
    "fill_sql", [ADVISORY, SAVEPOINTS, TABLES], ids=["advisory locks", "savepoints", "tables"]
)
def test_who_fills_the_table_of_locks_is_ended(
    deployment: Deployment, worker: Callable[..., Process], fill_sql: str
) -> None:
    """Within seconds, each time; others' calls go on, and none of them is paid twice."""
    process = worker()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(latency_s=0.5)])])
    with attacked(deployment, fill_sql) as (attack, login):
        until(lambda: len(attack.ended_after) > 0)
        began_at = time.monotonic()
        refused: list[int] = []
        while time.monotonic() < began_at + ATTACK_S or len(refused) < CALLS:
            refused.append(submit_patiently(deployment, org))
            time.sleep(ATTACK_S / CALLS / 2)
        submitted_s = time.monotonic() - began_at
        until(lambda: states_of(deployment, org) == {"succeeded"}, 30)
        done_s = time.monotonic() - began_at

    print(  # noqa: T201
        f"\n{len(attack.ended_after)} sessions ended, after {max(attack.ended_after):.2f} s at most, the table full for"
        f" {attack.longest_full_s:.2f} s at most; {len(refused)} calls submitted in {submitted_s:.1f} s,"
        f" {sum(refused)} refusals, ended after {done_s:.1f} s",
        end=" ",
    )
    assert len(attack.ended_after) > 1
    assert attack.longest_full_s < 5
    # Thousands of tables take seconds to make, and as long to roll back.
    assert max(attack.ended_after) < 15
    assert process.is_alive()
    assert "client_session.ended" in process.output()
    assert login in process.output()
    rows = deployment.attempts(org)
    assert [(row.status, row.attempt) for row in rows] == [("succeeded", 1)] * len(refused)
    assert all(0 < row.posted_nano_usd < row.hold_nano_usd for row in rows)
