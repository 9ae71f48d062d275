"""A process checks with its first connection that the ledger is one it can use."""

from __future__ import annotations

from contextlib import closing
from uuid import UUID

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from callgate import Client
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.version import RELEASES, SCHEMA, SCHEMA_REVISION
from callgate.domain.calls import CallKey
from callgate.domain.errors import NotMigrated
from callgate.settings import ClientSettings
from tests.support.tables import open_connection
from worker.migrate import SCRIPTS, migrate

KEY = CallKey(UUID(int=1), 1)


def a_client(url: str) -> Client:
    return Client(ClientSettings(database_url=url, broker_url="redis://127.0.0.1:1/0"))  # type: ignore[arg-type]


def test_the_newest_migration_is_the_one_that_the_code_knows(empty_url: str) -> None:
    migrate(empty_url)
    head = ScriptDirectory(str(SCRIPTS)).get_current_head()
    with closing(PostgresSession(empty_url)) as session:
        (row,) = session.rows(SCHEMA, {})

    assert head is not None
    assert head.split("_")[0] == row.revision == SCHEMA_REVISION == max(RELEASES)
    assert row.serves_from in RELEASES


def test_a_client_uses_a_ledger_of_its_version(empty_url: str) -> None:
    migrate(empty_url)
    with a_client(empty_url) as client:
        assert list(client.ledger.read([KEY])) == [None]


@pytest.mark.parametrize("revision", ["0001_create_the_ledger", None])
def test_a_client_refuses_a_ledger_of_0_1_or_none_and_says_what_to_do(
    empty_url: str, revision: str | None
) -> None:
    if revision:
        migrate(empty_url, revision)
    with a_client(empty_url) as client:
        with pytest.raises(
            NotMigrated, match=r"of callgate 0\.1, or there is none\. .*0\.2.* needs"
        ):
            list(client.ledger.read([KEY]))

        migrate(empty_url)

        assert list(client.ledger.read([KEY])) == [None], "no restart is needed"


def test_a_client_refuses_a_ledger_that_serves_newer_versions_only(empty_url: str) -> None:
    migrate(empty_url)
    with open_connection(empty_url) as connection:
        newer = "CREATE OR REPLACE FUNCTION callgate_schema_v1() RETURNS TABLE (revision text, serves_from text)"
        connection.execute(text(f"{newer} LANGUAGE sql AS $$ SELECT '0009', '0008' $$"))
        connection.commit()
    with a_client(empty_url) as client, pytest.raises(NotMigrated, match="install a newer version"):
        list(client.ledger.read([KEY]))
