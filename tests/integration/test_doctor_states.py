"""The doctor on real servers in bad states: each is found, by every login that can use the ledger."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres import checks, upkeep_checks
from callgate.adapters.postgres.checks import database_checks, may_run_calls
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, WORKER
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.doctor_checks import CHECKS, KEY_OF
from callgate.services.doctor import Finding, FindingStatus, run_checks
from devkit.servers.embedded import DevServers
from tests.integration.conftest import Command
from tests.support.command_line import answer_of
from tests.support.ledger_under_test import ORG, LedgerUnderTest
from tests.support.logins import a_client, a_login, name_of
from tests.support.partitions import PartitionedLedger
from tests.support.waiting import until

OK, WARN, FAIL = FindingStatus
DEAD_ROWS = 40


@pytest.fixture
def session(postgres_engine: Engine, services: DevServers) -> Iterator[PostgresSession]:
    """The owner's session on an empty ledger."""
    with closing(PostgresSession(services.database_url, pool_size=1)) as session:
        yield session


def look(session: PostgresSession, name: str, wall_s: float | None = None) -> Finding:
    """One finding about the server."""
    clock = time.time if wall_s is None else lambda: wall_s
    found = {f.name: f for f in run_checks(database_checks(session, wall_s=clock))}
    return found[name]


def test_every_check_of_the_table_is_made_and_no_other(
    services: DevServers, ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`limits` has nothing to say before a worker has declared any, `reachable` without a provider that has a key."""
    monkeypatch.setenv("CALLGATE_DATABASE_URL", services.database_url)
    monkeypatch.setenv("CALLGATE_BROKER_URL", services.broker_url)
    from callgate.client import Client

    found = [f["name"] for f in answer_of(Client.from_env, "doctor", codes=(0, 1))]

    table = {entry.name for entry in CHECKS}
    assert not any(name.startswith(KEY_OF) for name in found), "no provider has a key"
    assert set(found) == table - {"limits", "reachable", f"{KEY_OF}PROVIDER"}
    assert len(found) == len(set(found))


@pytest.mark.parametrize(("ahead_s", "words"), [(60.0, "ahead of"), (-60.0, "behind")])
def test_a_clock_that_is_off_is_found(session: PostgresSession, ahead_s: float, words: str) -> None:
    (row,) = session.rows(checks.NOW, {})
    finding = look(session, "clock", row.at + ahead_s)

    assert finding.status is WARN
    assert f"this machine is {abs(ahead_s):.0f}" in finding.sentence.replace("59.", "60.")
    assert f"{words} Postgres" in finding.sentence
    assert look(session, "clock").status is OK


def test_a_server_that_is_short_of_connections_is_found(
    session: PostgresSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(session, "database").status is OK
    monkeypatch.setattr(checks, "CONNECTIONS_USED", 0.0)

    finding = look(session, "database")

    assert finding.status is WARN
    assert " connections are used" in finding.sentence


def test_a_log_of_all_statements_is_found(services: DevServers) -> None:
    owner = create_engine(services.database_url, poolclass=NullPool)
    with a_login(services.database_url, WORKER) as url:
        with owner.begin() as connection:
            connection.execute(text(f"ALTER ROLE {name_of(url)} SET log_statement = 'all'"))
        with closing(PostgresSession(url, pool_size=1)) as session:
            finding = look(session, "server log")

    assert (finding.status, finding.todo) == (WARN, "Set log_statement = none (it is all).")


def test_an_old_open_transaction_is_found_with_its_session(
    session: PostgresSession, postgres_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text is not quoted. A login that may not see it says so."""
    with postgres_engine.connect() as other, a_login(session.url, CLIENT) as url:
        (pid,) = other.execute(text("SELECT pg_backend_pid(), 'secret'")).one()[:1]
        assert look(session, "transactions").status is OK
        monkeypatch.setattr(upkeep_checks, "OLD_TRANSACTION_S", 0.0)
        finding = look(session, "transactions")
        with closing(PostgresSession(url, pool_size=1)) as client:
            hidden = look(client, "transactions")

    assert finding.status is WARN
    assert f"session {pid} of " in finding.sentence
    assert "idle in transaction" in finding.sentence
    assert "secret" not in finding.sentence
    assert hidden.status is OK
    assert "this login may not see " in hidden.sentence


def test_dead_rows_of_a_hot_table_are_found(
    session: PostgresSession,
    postgres_engine: Engine,
    ledger: LedgerUnderTest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert look(session, "tables").status is OK
    ledger.queued()
    # In one transaction, so that no update removes what the one before has left.
    with postgres_engine.connect() as other:
        for _ in range(DEAD_ROWS):
            other.execute(text("UPDATE budget SET spent_nano_usd = spent_nano_usd"))
        other.execute(text("SELECT pg_stat_force_next_flush()"))
        other.commit()
    monkeypatch.setattr(upkeep_checks, "DEAD_MIN", DEAD_ROWS // 4)
    # Other sessions report their rows late, so the number of live ones is not known here.
    monkeypatch.setattr(upkeep_checks, "DEAD_PER_LIVE", 0.0)
    until(lambda: "budget has " in look(session, "tables").sentence)

    finding = look(session, "tables")

    assert finding.status is WARN
    assert "dead rows" in finding.sentence


def test_a_missing_month_and_rows_in_the_default_partition_are_found(
    log: PartitionedLedger, session: PostgresSession
) -> None:
    assert look(session, "partitions").status is OK
    (rows,) = [session.rows(upkeep_checks.PARTITIONS, {})]
    missing = rows[0].next_month
    log.sql(f"DROP TABLE ai_call_log_{missing}")
    try:
        finding = look(session, "partitions")
    finally:
        log.make(0, 2)

    assert (finding.status, finding.sentence) == (WARN, f"the log has none for {missing}")
    assert look(session, "partitions").status is OK


def test_a_client_without_an_organisation_is_found(
    services: DevServers, session: PostgresSession, ledger: LedgerUnderTest
) -> None:
    with (
        a_login(services.database_url, CLIENT) as nobody,
        closing(PostgresSession(nobody, pool_size=1)) as first,
        a_client(session, ORG) as somebody,
        closing(PostgresSession(somebody, pool_size=1)) as second,
    ):
        lacking, able = look(first, "login"), look(second, "login")

    assert (lacking.status, able.status) == (WARN, OK)
    assert "callgate tenants grant" in lacking.todo
    assert able.sentence.endswith("it may submit for 1 organisations")
    assert look(session, "login").status is OK


@pytest.mark.parametrize(
    ("role", "expected"), [(WORKER, True), (DASHBOARD, False), (CLIENT, False)]
)
def test_only_a_workers_login_needs_keys(
    services: DevServers, ledger: LedgerUnderTest, role: str, expected: bool
) -> None:
    with (
        a_login(services.database_url, role) as url,
        closing(PostgresSession(url, pool_size=1)) as session,
    ):
        assert may_run_calls(session) is expected


@pytest.mark.parametrize("role", [WORKER, DASHBOARD, CLIENT])
def test_every_role_is_answered_or_told_that_it_may_not_see(
    services: DevServers, ledger: LedgerUnderTest, role: str
) -> None:
    """No check fails because of what a role may not do."""
    from callgate.client import Client
    from callgate.settings import ClientSettings

    ledger.queued()
    with a_login(services.database_url, role) as url:
        settings = ClientSettings(database_url=url, broker_url=services.broker_url)  # type: ignore[arg-type]
        found = answer_of(lambda: Client(settings), "doctor", codes=(0, 1))

    failed = {f["name"]: f["sentence"] for f in found if f["status"] == "fail"}
    backlog = next(f["sentence"] for f in found if f["name"] == "backlog")
    # A call waits, no worker is alive, and no key is there: that is true, and seen by whom it concerns.
    assert set(failed) == {WORKER: {"workers", "keys"}, DASHBOARD: {"workers"}, CLIENT: set()}[role]
    assert ("may not see" in backlog) is (role == CLIENT)


def test_the_doctor_prints_no_secret(
    services: DevServers,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Passwords in URLs of proxies and servers, and keys."""
    secrets = [uuid4().hex for _ in range(3)]
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{secrets[0]}@127.0.0.1:1")
    monkeypatch.setenv("CALLGATE_WORKER__CREDENTIALS__OPENAI", secrets[1])
    monkeypatch.setenv("CALLGATE_CACHE_URL", f"redis://:{secrets[2]}@127.0.0.1:1/0")

    command("doctor")

    out = capsys.readouterr().out
    assert "HTTPS_PROXY" in next(line for line in out.splitlines() if " transport: " in line)
    assert not any(secret in out for secret in secrets)
    for url in (os.environ["CALLGATE_DATABASE_URL"], os.environ["CALLGATE_BROKER_URL"]):
        password = urlsplit(url).password
        assert not password or password not in out
