"""PgBouncer in transaction mode: transactions may use different sessions of Postgres, and callgate needs none."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import make_url

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallState
from callgate.domain.errors import ConfigurationError, LedgerUnavailable
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Simulator
from tests.support.deployment import Deployment
from tests.support.pgbouncer import a_pooler
from worker.migrate import migrate

DATABASE = "pooled"


@pytest.fixture(scope="module")
def empty_url(services: DevServers) -> Iterator[str]:
    """The URL of a new empty database, through PgBouncer."""
    url = make_url(services.database_url)
    with closing(psycopg2.connect(services.database_url.replace("+psycopg2", ""))) as owner:
        owner.autocommit = True
        with owner.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {DATABASE}")
            own = url.set(database=DATABASE).render_as_string(hide_password=False)
            # The account of PgBouncer cannot read pytest's temporary folders.
            with tempfile.TemporaryDirectory() as folder:
                Path(folder).chmod(0o755)
                with a_pooler(own, Path(folder)) as pooled:
                    yield pooled
            cursor.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


@pytest.fixture(scope="module")
def url(empty_url: str) -> str:
    """The URL of the same database, migrated through PgBouncer."""
    migrate(empty_url)
    return empty_url


@pytest.fixture
def deployment(
    services: DevServers, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    """A deployment that uses PgBouncer."""
    monkeypatch.setattr(services, "database_url", url)
    with Simulator() as provider, Deployment(services, provider, tmp_path) as deployment:
        yield deployment


def test_calls_run_through_it(deployment: Deployment) -> None:
    """Clients and workers use more connections than PgBouncer has sessions."""
    org = deployment.org()
    deployment.worker()
    handles = deployment.client.submit_many([deployment.request(org) for _ in range(40)])

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda handle: handle.get(timeout=60), handles))

    assert len({result.call_id for result in results}) == 40
    assert all(handle.state is CallState.SUCCEEDED for handle in handles)
    deployment.assert_audit_is_clean()


def test_the_doctor_reports_no_failure(deployment: Deployment) -> None:
    """It finds the database and the schema."""
    doctor = deployment.start("doctor", [sys.executable, "-m", "callgate", "doctor"])

    doctor.until_it_says("OK   database")
    doctor.until_it_says("OK   schema")


def test_a_timeout_applies_to_its_statement_only(url: str) -> None:
    """No other session inherits it, and this one does not lose it."""
    with (
        closing(PostgresSession(url, timeout_s=1.0)) as hasty,
        closing(PostgresSession(url, timeout_s=30.0)) as patient,
        ThreadPoolExecutor(8) as threads,
    ):
        shown = "SELECT current_setting('statement_timeout') AS timeout, pg_sleep(0.01)"
        asked = [
            (session, timeout)
            for _ in range(40)
            for session, timeout in ((hasty, "1s"), (patient, "30s"))
        ]
        found = threads.map(lambda pair: (pair[0].answers(shown, {})[0].timeout, pair[1]), asked)
        assert all(actual == expected for actual, expected in found)
        with pytest.raises(LedgerUnavailable):
            hasty.rows("SELECT pg_sleep(20)", {})
    with closing(psycopg2.connect(url.replace("+psycopg2", ""))) as other, other.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)


def test_unsupported_options_are_refused_in_one_line(url: str) -> None:
    """Sessions and migrations print the reason and the solution."""
    asking = f"{url}?options=-csearch_path%3Dours"
    says = r"^PgBouncer refused .*take options= out of CALLGATE_DATABASE_URL.*ALTER ROLE"
    with (
        closing(PostgresSession(asking)) as session,
        pytest.raises(ConfigurationError, match=says) as refused,
    ):
        session.rows("SELECT 1", {})
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigurationError, match=says):
        migrate(asking)
