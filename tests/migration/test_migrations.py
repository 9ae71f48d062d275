"""The migrations build what the code expects, take it down, and build it again."""

from __future__ import annotations

import shutil
from contextlib import closing
from importlib import resources
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, make_url, text

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.roles import CLIENT, MAY_EXECUTE, ROLES
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tables import PARTITION_NAME, metadata
from callgate.domain.errors import (
    ConfigurationError,
    LedgerUnavailable,
    NotMigrated,
    NotPermitted,
)
from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port
from tests.support.logins import a_login
from tests.support.tables import open_connection
from worker.migrate import SCRIPTS, migrate

OWN_OBJECTS = """
SELECT (SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
           AND c.relkind IN ('r', 'p', 'v', 'S') AND c.relname <> 'callgate_version')
     + (SELECT count(*) FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
           AND p.proname LIKE 'callgate%')
"""

DEFINERS = """
SELECT p.proname, p.proconfig,
       p.proacl IS NULL OR EXISTS (SELECT 1 FROM aclexplode(p.proacl) a WHERE a.grantee = 0) AS for_everybody
  FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
"""
DUE_BEFORE_0_1_0 = """
CREATE FUNCTION callgate_due_v1(p_limit int, p_reaper text, p_steady_s float8, p_queued_before timestamptz)
RETURNS TABLE (kind text, call_id uuid, generation int, state text, attempt_id uuid)
LANGUAGE sql AS $$ SELECT NULL::text, NULL::uuid, NULL::int, NULL::text, NULL::uuid WHERE false $$
"""
MONTHS_AROUND = """
SELECT 'ai_call_log_' || to_char((now() AT TIME ZONE 'UTC') + m * interval '1 month', 'YYYY_MM')
  FROM generate_series(-1, 2) AS m
"""


def scripts_with_role(folder: Path, role: str) -> Path:
    """A copy of the migrations in which the first one needs one more role."""
    copy = folder / "migrations"
    shutil.copytree(SCRIPTS, copy)
    first = copy / "versions" / "0001_create_the_ledger.py"
    source = first.read_text("utf-8")
    changed = source.replace("ROLES = (", f'ROLES = ("{role}", ')
    assert changed != source
    first.write_text(changed, "utf-8")
    return copy


def test_up_down_and_up_again(empty_url: str) -> None:
    """From nothing to the newest schema, to nothing of ours, and to the newest again."""
    migrate(empty_url)
    with open_connection(empty_url) as connection:
        tables = set(inspect(connection).get_table_names())
    partitions = {name for name in tables if PARTITION_NAME.fullmatch(name)}
    declared = {table.name for table in metadata.sorted_tables}
    assert tables - partitions == declared | {"callgate_version"}
    assert len(partitions) == 5

    migrate(empty_url, "base")
    with open_connection(empty_url) as connection:
        assert connection.scalar(text(OWN_OBJECTS)) == 0

    migrate(empty_url)
    with open_connection(empty_url) as connection:
        assert set(inspect(connection).get_table_names()) == tables


def test_a_role_another_database_needs_stays(empty_url: str, services: DevServers) -> None:
    """Roles belong to the cluster: taking one ledger down takes back its own grants, and no role of another ledger."""
    migrate(empty_url)
    migrate(empty_url, "base")

    with open_connection(empty_url) as connection:
        known = set(connection.scalars(text("SELECT rolname FROM pg_roles")))
        here = "has_schema_privilege('callgate_client', 'public', 'CREATE')"
        assert connection.scalar(text(f"SELECT {here}")) is False
    assert set(ROLES) <= known


def test_a_login_that_may_not_create_roles_is_told_what_to_run(
    empty_url: str, services: DevServers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is half done. Once the roles exist, an ordinary owner migrates, and its clients see only their own."""
    missing = f"callgate_missing_{uuid4().hex[:8]}"
    with a_login(services.database_url) as ordinary:
        name = make_url(ordinary).username
        with open_connection(empty_url) as admin:
            admin.execute(text(f"ALTER DATABASE {make_url(empty_url).database} OWNER TO {name}"))
            admin.commit()
        url = make_url(ordinary).set(database=make_url(empty_url).database)
        own_url = url.render_as_string(hide_password=False)

        monkeypatch.setattr("worker.migrate.SCRIPTS", scripts_with_role(tmp_path, missing))
        with pytest.raises(ConfigurationError, match=f"CREATE ROLE {missing} NOLOGIN;"):
            migrate(own_url)
        monkeypatch.undo()
        migrate(own_url)
        with a_login(services.database_url, CLIENT) as client, open_connection(own_url) as owner:
            owner.execute(
                text("SELECT callgate_grant_tenant_v1(:login, 'acme')"),
                {"login": make_url(client).username},
            )
            orgs = "SELECT callgate_tenant_orgs_v1()"
            assert owner.scalar(text(orgs)) is None
            owner.commit()
            its_url = make_url(client).set(database=url.database)
            with open_connection(its_url.render_as_string(hide_password=False)) as its:
                assert its.scalar(text(orgs)) == ["acme"]
        migrate(own_url, "base")
        with open_connection(empty_url) as admin:
            admin.execute(text(f"REASSIGN OWNED BY {name} TO callgate"))
            admin.commit()


def test_a_login_that_does_not_own_the_ledger_is_told_so(empty_url: str) -> None:
    """A pipeline's login in the wrong place: the error names the right one, in one line."""
    migrate(empty_url)
    with a_login(empty_url, CLIENT) as url:
        for revision in ("head", "base"):
            with pytest.raises(NotPermitted, match=r"login that owns the tables$") as refused:
                migrate(url, revision)
            assert "[SQL" not in str(refused.value)


def test_migrating_twice_changes_nothing(empty_url: str) -> None:
    """A second run on a database that is up to date is no error."""
    migrate(empty_url)
    migrate(empty_url)


def test_the_newest_schema_is_what_the_code_declares(empty_url: str) -> None:
    """Tables, columns, types, indexes and constraints are those of `callgate.adapters.postgres.tables`."""
    migrate(empty_url)

    with open_connection(empty_url) as connection:
        options = {
            "version_table": "callgate_version",
            "compare_type": True,
            "include_name": lambda name, *_: not PARTITION_NAME.fullmatch(name or ""),
        }
        differences = compare_metadata(
            MigrationContext.configure(connection, opts=options), metadata
        )

    assert differences == []


def test_who_may_run_with_the_owners_rights(empty_url: str) -> None:
    """Only the listed roles. And such a function finds tables in our schema only."""
    migrate(empty_url)

    with open_connection(empty_url) as connection:
        rows = connection.execute(text(DEFINERS)).all()

    assert {row.proname for row in rows} == set(MAY_EXECUTE)
    assert not any(row.for_everybody for row in rows)
    assert all("search_path=public, pg_temp" in row.proconfig for row in rows)


def test_the_partitions_of_this_month_and_its_neighbours_are_there(empty_url: str) -> None:
    """From the first row on: none must go to the default partition."""
    migrate(empty_url)

    with open_connection(empty_url) as connection:
        names = connection.scalars(text(MONTHS_AROUND)).all()

        assert set(names) <= set(inspect(connection).get_table_names())
        assert len(names) == 4


def test_there_is_one_newest_revision() -> None:
    """With two heads, chance would decide which schema a deployment gets."""
    assert len(ScriptDirectory(str(SCRIPTS)).get_heads()) == 1


def test_a_database_that_is_away_is_said_to_be(empty_url: str) -> None:
    """An unreachable server is a typed error, without the password."""
    url = make_url(empty_url).set(port=free_port()).render_as_string(hide_password=False)

    with pytest.raises(LedgerUnavailable) as away:
        migrate(url)

    assert (make_url(url).password or "no password") not in str(away.value)


@pytest.mark.parametrize("revision", ["0001", "0002", "0004", "9999_of_the_future"])
def test_a_ledger_of_an_unknown_revision_is_refused_in_one_line(
    empty_url: str, revision: str
) -> None:
    """Before 0.1.0 revisions were called 0001 to 0004. The line says what to do, and nothing is changed."""
    with open_connection(empty_url) as connection:
        connection.execute(text("CREATE TABLE callgate_version (version_num varchar(32))"))
        connection.execute(text("INSERT INTO callgate_version VALUES (:it)"), {"it": revision})
        connection.commit()

    for target in ("head", "base"):
        with pytest.raises(NotMigrated) as refused:
            migrate(empty_url, target)

        assert f"does not know revision {revision}" in str(refused.value)
        assert "create a new one in an empty database" in str(refused.value)
        assert "\n" not in str(refused.value)
    with open_connection(empty_url) as connection:
        assert inspect(connection).get_table_names() == ["callgate_version"]


def test_a_worker_refuses_a_ledger_from_before_the_first_release(empty_url: str) -> None:
    """Its first question is a function that such a ledger does not have in this form."""
    with open_connection(empty_url) as connection:
        connection.execute(text(DUE_BEFORE_0_1_0))
        connection.commit()

    with (
        closing(PostgresSession(empty_url)) as session,
        pytest.raises(NotMigrated, match="run `callgate migrate`"),
    ):
        PostgresLedger(session).take_due(limit=0)


def test_the_fallback_makes_ids_in_order_of_time(empty_url: str) -> None:
    """Before Postgres 18 a function of ours stands in for `uuidv7()`: version 7, its variant, and sorted by time."""
    folder = resources.files("callgate.adapters.postgres").joinpath("sql")
    source = folder.joinpath("uuidv7.sql").read_text("utf-8").replace("%", "%%")
    own = source.replace("FUNCTION uuidv7()", "FUNCTION stand_in.uuidv7()")
    assert own != source
    with open_connection(empty_url) as connection:
        connection.execute(text("CREATE SCHEMA stand_in"))
        connection.exec_driver_sql(own)
        # A millisecond apart: within one the order is not promised.
        rows = connection.execute(
            text(
                "SELECT stand_in.uuidv7() AS id, extract(epoch FROM clock_timestamp()) AS at, pg_sleep(0.002)"
                " FROM generate_series(1, 30)"
            )
        ).all()

    ids = [UUID(str(row.id)) for row in rows]
    assert {(i.version, i.variant) for i in ids} == {(7, "specified in RFC 4122")}
    assert ids == sorted(ids)
    assert len(set(ids)) == 30
    assert all(
        abs((i.int >> 80) / 1000 - float(row.at)) < 1 for i, row in zip(ids, rows, strict=True)
    )
