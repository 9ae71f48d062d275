"""The migrations build what the code expects, take it down, and build it again."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, make_url, text
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.roles import CLIENT, MAY_EXECUTE, ROLES
from callgate.adapters.postgres.tables import PARTITION_NAME, metadata
from callgate.domain.errors import ConfigurationError, LedgerUnavailable, NotPermitted
from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port
from tests.support.logins import a_login
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
MONTHS_AROUND = """
SELECT 'ai_call_log_' || to_char((now() AT TIME ZONE 'UTC') + m * interval '1 month', 'YYYY_MM')
  FROM generate_series(-1, 2) AS m
"""


@pytest.fixture
def empty_url(services: DevServers) -> Iterator[str]:
    """A new database on the server of this run, dropped afterwards."""
    name = f"empty_{uuid4().hex[:12]}"
    admin = create_engine(services.database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = make_url(services.database_url).set(database=name)
    yield url.render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def open_connection(url: str) -> Connection:
    """A connection of its own."""
    return create_engine(url, poolclass=NullPool).connect()


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
    empty_url: str, services: DevServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is half done; with the roles there, an ordinary owner migrates, and its clients are held to theirs."""
    missing = f"callgate_missing_{uuid4().hex[:8]}"
    with a_login(services.database_url) as ordinary:
        name = make_url(ordinary).username
        with open_connection(empty_url) as admin:
            admin.execute(text(f"ALTER DATABASE {make_url(empty_url).database} OWNER TO {name}"))
            admin.commit()
        url = make_url(ordinary).set(database=make_url(empty_url).database)
        own_url = url.render_as_string(hide_password=False)

        monkeypatch.setattr("callgate.adapters.postgres.roles.ROLES", (*ROLES, missing))
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


# SQLAlchemy 2.1 reads of a CHECK that is NOT VALID what it then does not know.
@pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")
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
    """Nobody who was not told so; and such a function looks for tables in our schema alone."""
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
    """Two heads would leave it to chance which schema a deployment gets."""
    assert len(ScriptDirectory(str(SCRIPTS)).get_heads()) == 1


def test_a_database_that_is_away_is_said_to_be(empty_url: str) -> None:
    """An unreachable server is a typed error, without the password."""
    url = make_url(empty_url).set(port=free_port()).render_as_string(hide_password=False)

    with pytest.raises(LedgerUnavailable) as away:
        migrate(url)

    assert (make_url(url).password or "no password") not in str(away.value)


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


OLD_CALL = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, request, error, attempt_id)
VALUES (:id, 1, 'acme', CAST(:hash AS bytea), :state, now(), :name, 'sim', 'sim-1', :bound, CAST(:request AS bytea),
        :error, gen_random_uuid())"""
OLD_LINK = """INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, link, idempotency_key)
VALUES (gen_random_uuid(), 'acme', :id, 1, 'created', :link, :key)"""
OLD_ATTEMPT = """INSERT INTO ai_call_log (
    call_id, generation, attempt, org_id, input_hash, call_type, provider, model, status, hold_nano_usd,
    posted_nano_usd, posted_at, budget_ids, price_source, queue_ms, worker_id, reply)
SELECT :id, 1, 1, 'acme', CAST(:hash AS bytea), :name, 'sim', :name, 'succeeded', 1,
       1, now(), '{1}', 'a list', 0, 'w', 'x'"""


def test_rows_of_before_that_no_bound_would_take_are_mended(empty_url: str) -> None:
    """A client's login could store them: each can be changed afterwards, and who was to be told still is."""
    migrate(empty_url, "0003")
    ids = {name: uuid4() for name in ("fine", "huge", "odd", "told of", "rests")}
    common = {"hash": b"x" * 32, "name": "t", "bound": 1, "request": b"x", "error": None}
    with open_connection(empty_url) as connection:
        for name, changes in {
            "fine": {"state": "queued"},
            "huge": {"state": "queued", "request": b"x" * (32 * 2**20 + 1)},
            "odd": {"state": "queued", "hash": b"x" * 99, "name": "n" * 999, "bound": -1},
            "told of": {"state": "succeeded"},
            "rests": {"state": "rejected", "error": "e" * 20_000},
        }.items():
            connection.execute(text(OLD_CALL), {**common, "id": ids[name], **changes})
        for name, link, key in (
            ("told of", "a link", "k" * 300),
            ("rests", "l" * 70_000, None),
            ("huge", "another link", None),
        ):
            connection.execute(text(OLD_LINK), {"id": ids[name], "link": link, "key": key})
        posted = {"id": ids["told of"], "hash": b"x" * 99, "name": "n" * 999}
        connection.execute(text(OLD_ATTEMPT), posted)
        connection.commit()

    migrate(empty_url)

    with open_connection(empty_url) as connection:
        connection.execute(text("UPDATE llm_call SET sweeps = sweeps + 1"))
        connection.execute(text("UPDATE submission SET tries = tries + 1"))
        # As purging does: of all calls together, so one row that takes no change would stop it for everybody.
        connection.execute(text("UPDATE ai_call_log SET reply = NULL"))
        calls = {
            row.call_id: row for row in connection.execute(text("SELECT * FROM llm_call")).all()
        }
        untold = set(connection.scalars(text("SELECT call_id FROM untold_call")))
        links = dict(
            connection.execute(
                text("SELECT call_id, given_up_at IS NOT NULL FROM submission")
            ).all()
        )
    assert {name: calls[call_id].state for name, call_id in ids.items()} == {
        "fine": "queued",
        "huge": "rejected",
        "odd": "queued",
        "told of": "succeeded",
        "rests": "rejected",
    }
    odd = calls[ids["odd"]]
    assert (len(odd.input_hash), len(odd.call_type), odd.input_token_bound) == (32, 128, 0)
    assert (calls[ids["huge"]].request, bytes(calls[ids["fine"]].request)) == (None, b"x")
    assert untold == {ids["told of"], ids["huge"]}
    assert links == {ids["told of"]: False, ids["rests"]: True, ids["huge"]: False}
