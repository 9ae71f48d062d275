"""The SQL of the page about production makes an installation whose logins work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.checks import database_checks
from callgate.adapters.postgres.session import PostgresSession
from callgate.services.doctor import FindingStatus, run_checks
from devkit.servers.embedded import DevServers
from tests.support.page_blocks import blocks_of
from worker.migrate import migrate

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "production.md"
COMMENT = re.compile(r"--.*")
LATER = "-- After `callgate migrate`, which creates the roles:"
PASSWORDS = {"ledger_owner": "one", "worker": "two", "dashboard": "three", "acme_pipeline": "four"}


@pytest.fixture(scope="module")
def installation(services: DevServers) -> Iterator[dict[str, str]]:
    """The URL of each login, after the page's statements."""
    (statements,) = [block.text for block in blocks_of(PAGE) if block.language == "sql"]
    first, later = statements.split(LATER)
    server = create_engine(services.database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    base = make_url(services.database_url).set(database="ledger")
    urls = {
        name: base.set(username=name, password=password).render_as_string(hide_password=False)
        for name, password in PASSWORDS.items()
    }

    def run(text: str) -> None:
        with server.connect() as connection:
            for statement in COMMENT.sub("", text).split(";"):
                if statement.strip():
                    connection.exec_driver_sql(statement)

    try:
        run(first)
        migrate(urls["ledger_owner"])
        run(later)
        yield urls
    finally:
        run("DROP DATABASE IF EXISTS ledger WITH (FORCE)")
        for name in PASSWORDS:
            run(f"DROP ROLE IF EXISTS {name}")
        server.dispose()


@pytest.mark.parametrize(
    ("login", "check"),
    [("worker", "database"), ("worker", "login"), ("worker", "locks"), ("dashboard", "login")],
)
def test_a_login_of_the_page_may_do_its_work(
    installation: dict[str, str], login: str, check: str
) -> None:
    with closing(PostgresSession(installation[login])) as session:
        checks = [one for one in database_checks(session) if one.name in ("database", check)]
        (found,) = [one for one in run_checks(checks) if one.name == check]

    assert found.status is FindingStatus.OK, found
