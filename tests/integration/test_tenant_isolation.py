# ruff: noqa: S608 - every statement is ours, or an attack of ours
"""
A hostile client: it has the password of its own database login, and may run any SQL.

Its organisation is "mine"; "theirs" belongs to somebody else, and has calls in every state.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, WORKER
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tables import metadata
from callgate.adapters.postgres.tenants import PostgresTenants, Tenant
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.calls import Bodies, CallKey, CallState
from callgate.domain.delivery import Told
from callgate.domain.errors import ConfigurationError
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.reports import CallFilter
from devkit.servers.embedded import DevServers
from tests.support.ledger_under_test import (
    LINK,
    LedgerUnderTest,
    a_failure,
    a_submission,
    a_success,
    an_answer,
    open_postgres,
)
from tests.support.logins import a_client, a_login, name_of, owner_url
from tests.support.partitions import month, partition_of
from tests.support.tables import EMPTY

DENIED = "42501"
"""insufficient_privilege"""
THEIR_PROMPT = "what only they may read"


@pytest.fixture(scope="module")
def owner(services: DevServers) -> Iterator[PostgresSession]:
    """The owner's session, on a ledger that was empty before."""
    with closing(PostgresSession(services.database_url)) as session:
        session.rows(EMPTY, {})
        yield session


@pytest.fixture(scope="module")
def ledger(owner: PostgresSession) -> LedgerUnderTest:
    """The owner's ledger; "theirs" has a call of each kind, "mine" has nothing."""
    ledger = open_postgres(owner)
    ledger.operations.set_budget("theirs", ORG_SCOPE, Window.DAY, 10_000)
    contents = (THEIR_PROMPT, "running", "succeeded", "dead")
    queued = [their(c, link=LINK, idempotency_key=f"key of {c}") for c in contents]
    keys = [answer.key for answer in ledger.submit(*queued)]
    ledger.claim(keys[1])
    done = ledger.claim(keys[2])
    ledger.record(an_answer(done))
    ledger.settle(a_success(done))
    kill(ledger, keys[3])
    ledger.submit(*(their(f"call {number}") for number in range(200)))
    owner.rows("ANALYZE", {})
    return ledger


@pytest.fixture(scope="module")
def url(owner: PostgresSession, ledger: LedgerUnderTest) -> Iterator[str]:
    """The hostile client's own login, which acts for "mine"."""
    with a_client(owner, "mine") as url:
        yield url


@pytest.fixture(scope="module")
def session(url: str) -> Iterator[PostgresSession]:
    """What the ordinary client uses, with that login."""
    with closing(PostgresSession(url, pool_size=1)) as session:
        yield session


@pytest.fixture
def attacker(url: str) -> Iterator[Connection]:
    """A connection for any SQL."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def kill(ledger: LedgerUnderTest, key: CallKey) -> None:
    """Have a queued call end as a dead letter."""
    attempt = ledger.claim(key)
    ledger.record(an_answer(attempt, reply=None, error="{}"))
    ledger.settle(a_failure(attempt))


def their(content: str, **changes: Any) -> Any:
    """A submission of the other organisation."""
    return a_submission(content, org_id="theirs", **changes)


def books(owner: PostgresSession) -> dict[str, list[Any]]:
    """Every row of every table."""
    return {
        table.name: [tuple(row) for row in owner.rows(f"SELECT * FROM {table.name} ORDER BY 1", {})]
        for table in metadata.sorted_tables
    }


def sqlstate_of(connection: Connection, statement: str) -> str:
    """How Postgres refuses a statement; empty if it does not."""
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as exc:
        return str(getattr(exc.orig, "pgcode", None))
    return ""


# The ordinary client.


def test_an_ordinary_client_works(owner: PostgresSession, ledger: LedgerUnderTest) -> None:
    """Submit, join, read with bodies, list, budgets, costs and cancel: all of it within its organisation."""
    ledger.operations.set_budget("ours", ORG_SCOPE, Window.DAY, 500)
    with a_client(owner, "ours") as url, closing(PostgresSession(url)) as session:
        client, operations = PostgresLedger(session), PostgresOperations(session)
        one, two = (a_submission("q", org_id="ours", link=LINK) for _ in range(2))

        answers = client.submit([one, two])
        (view,) = client.read([answers[0].key], Bodies.BOTH)

        assert [a.outcome for a in answers] == [SubmitOutcome.CREATED, SubmitOutcome.JOINED]
        assert view is not None
        assert view.request == one.request
        assert [v.org_id for v in operations.calls(CallFilter(), limit=10)] == ["ours"]
        assert [b.org_id for b in operations.budgets()] == ["ours"]
        assert [(c.org_id, c.calls) for c in operations.costs()] == [("ours", 1)]
        assert operations.dead_groups(CallFilter()) == []
        assert operations.end([view.key], code="cancelled", message="") == [view.key]
        assert ledger.view(view.key).state is CallState.REJECTED


def test_a_revoked_organisation_is_out_of_reach_at_once(owner: PostgresSession) -> None:
    """Also for a connection that was open before."""
    tenants = PostgresTenants(owner)
    with a_client(owner, "former") as url, closing(PostgresSession(url, pool_size=1)) as session:
        client, tenant = PostgresLedger(session), Tenant(name_of(url), "former")
        (answer,) = client.submit([a_submission("q", org_id="former")])

        was_granted = tenants.revoke(tenant)

        assert (was_granted, tenants.revoke(tenant)) == (True, False)
        assert tenant not in tenants.all()
        assert list(client.read([answer.key])) == [None]
        with pytest.raises(ConfigurationError, match="may not act for organisation former"):
            client.submit([a_submission("r", org_id="former")])


def test_a_login_without_an_organisation_sees_nothing(
    owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """Membership alone opens nothing."""
    with a_login(owner_url(owner), CLIENT) as url, closing(PostgresSession(url)) as session:
        assert PostgresOperations(session).calls(CallFilter(), limit=10) == []
        with pytest.raises(ConfigurationError):
            PostgresLedger(session).submit([a_submission("q", org_id="")])


@pytest.mark.parametrize("roles", [(), (CLIENT, WORKER), (CLIENT, DASHBOARD)])
def test_only_a_client_can_be_held_to_an_organisation(
    owner: PostgresSession, roles: tuple[str, ...]
) -> None:
    """A login that is none, or that sees more than a client, is refused: the grant would promise too much."""
    with a_login(owner_url(owner), *roles) as url, pytest.raises(ConfigurationError):
        PostgresTenants(owner).grant(Tenant(name_of(url), "mine"))


@pytest.mark.parametrize("options", ["BYPASSRLS", "SUPERUSER"])
def test_a_login_that_sees_every_row_is_refused(owner: PostgresSession, options: str) -> None:
    """Postgres does not hold it to anything."""
    with (
        a_login(owner_url(owner), CLIENT, options=options) as url,
        pytest.raises(ConfigurationError, match="sees every organisation"),
    ):
        PostgresTenants(owner).grant(Tenant(name_of(url), "mine"))


# Reading.

TABLE_READS = {
    "calls": "SELECT count(*) FROM llm_call",
    "their calls": "SELECT count(*) FROM llm_call WHERE org_id = 'theirs'",
    "submissions": "SELECT count(*) FROM submission",
    "attempts": "SELECT count(*) FROM ai_call_log",
    "a partition": "SELECT count(*) FROM ai_call_log_default",
    "sums": "SELECT count(*) FROM ai_call_log_sums",
    "budgets": "SELECT count(*) FROM budget",
    "nothing of a row": "SELECT FROM llm_call",
    "by a set role": f"SET ROLE {CLIENT}; SELECT count(*) FROM llm_call",
    "without row security": "SET row_security = off; SELECT count(*) FROM llm_call",
    "sampled": "SELECT count(*) FROM llm_call TABLESAMPLE SYSTEM (100)",
    "by place": "SELECT count(*) FROM llm_call WHERE ctid = '(0,1)'",
    "what a filter removes": "EXPLAIN (ANALYZE) SELECT FROM llm_call WHERE org_id >= 'a'",
    "copied": "COPY llm_call TO STDOUT",
    "copied by a query": "COPY (SELECT * FROM submission) TO STDOUT",
    "samples": "SELECT * FROM pg_statistic",
}
THEIRS = """
SELECT (SELECT count(*) FROM callgate_calls_v1({org}, NULL, NULL, NULL, NULL, NULL, NULL, 10))
     + (SELECT count(*) FROM callgate_dead_groups_v1({org}, NULL, NULL, NULL, NULL, NULL))
     + (SELECT count(*) FROM callgate_costs_v1({org})) + (SELECT count(*) FROM callgate_budgets_v1({org}))
"""
READS = {
    "all there is": THEIRS.format(org="NULL"),
    "what is theirs": THEIRS.format(org="'theirs'"),
    "by a setting": "SET callgate.org_id = 'theirs';" + THEIRS.format(org="'theirs'"),
    "by a set role": f"SET ROLE {CLIENT};" + THEIRS.format(org="NULL"),
    "in another search path": (
        "CREATE TEMP TABLE tenant_login AS SELECT session_user::text AS login, 'theirs' AS org_id;"
        "SET search_path = pg_temp, public;" + THEIRS.format(org="NULL")
    ),
    "prepared": f"PREPARE p AS {THEIRS.format(org='NULL')}; EXECUTE p",
    "statistics": "SELECT count(*) FROM pg_stats WHERE schemaname = 'public'",
    "what others run": (
        "SELECT count(*) FROM pg_stat_activity WHERE usename <> session_user AND query NOT LIKE '<insuff%'"
    ),
}


@pytest.mark.parametrize("how", TABLE_READS)
def test_no_table_is_read(attacker: Connection, how: str) -> None:
    """Not even rows of its own: what may read a table may also have its statistics explained."""
    assert sqlstate_of(attacker, TABLE_READS[how]) == DENIED


@pytest.mark.parametrize("how", READS)
def test_nothing_of_others_is_seen(attacker: Connection, how: str) -> None:
    """However it asks, it counts no row."""
    assert attacker.exec_driver_sql(READS[how].replace("%", "%%")).scalar() == 0


def test_calls_of_others_are_not_read_by_their_ids(
    session: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """A known id is as good as one that does not exist."""
    theirs = ledger.operations.calls(CallFilter(org_id="theirs"), limit=1_000)
    failed = ledger.links(keys=[view.key for view in theirs])
    ledger.ledger.deliver([Told(link.submission_id, "refused", 3_600.0) for link in failed])
    assert any(ledger.operations.link_failures(view.key, limit=10) for view in theirs)
    wanted = CallFilter(call_ids=tuple(view.key.call_id for view in theirs))

    views = PostgresLedger(session).read([view.key for view in theirs], Bodies.BOTH)

    their_failures = [
        PostgresOperations(session).link_failures(view.key, limit=10) for view in theirs
    ]

    assert their_failures == [[]] * len(theirs)
    assert set(views) == {None}
    assert PostgresOperations(session).calls(wanted, limit=10) == []


# Writing, and everything else.

FORBIDDEN = {
    **{
        f"{verb} {table}": statement.format(table=table)
        for table in metadata.tables
        for verb, statement in {
            "insert into": "INSERT INTO {table} DEFAULT VALUES",
            "delete from": "DELETE FROM {table}",
            "truncate": "TRUNCATE {table}",
            "copy into": "COPY {table} FROM STDIN",
        }.items()
    },
    "update a state": "UPDATE llm_call SET state = 'succeeded'",
    "update a hold": "UPDATE ai_call_log SET hold_nano_usd = 0",
    "update a limit": "UPDATE budget SET limit_nano_usd = 0",
    "update a link": "UPDATE submission SET link = NULL",
    "lock rows for update": "SELECT 1 FROM llm_call FOR UPDATE",
    "lock rows for share": "SELECT 1 FROM llm_call FOR SHARE",
    "lock budgets": "SELECT 1 FROM budget FOR KEY SHARE",
    "lock a table": "BEGIN; LOCK TABLE budget IN ACCESS SHARE MODE",
    "keep months from being made": "BEGIN; LOCK TABLE ai_call_log_archive IN ACCESS SHARE MODE",
    "read unprocessable_messages": "SELECT * FROM unprocessable_message",
    "read dead letters": "SELECT * FROM dead_letter",
    "read the grants": "SELECT * FROM tenant_login",
    "grant itself": "INSERT INTO tenant_login SELECT session_user, 'theirs'",
    "grant itself by the function": "SELECT callgate_grant_tenant_v1(session_user::text, 'theirs')",
    "become a worker": f"SET ROLE {WORKER}",
    "become the dashboard": f"SET ROLE {DASHBOARD}",
    "become the owner": "SET ROLE callgate",
    "become somebody else": "SET SESSION AUTHORIZATION callgate",
    "call others into its role": f"GRANT {CLIENT} TO {WORKER}",
    "reserve": "SELECT callgate_reserve_v1(" + ", ".join(["'{}'"] * 14) + ")",
    "record": "SELECT callgate_record_v1('{}','{}','{}','{}','{}')",
    "settle": "SELECT callgate_settle_v1(" + ", ".join(["'{}'"] * 20) + ")",
    "due": "SELECT callgate_due_v1(1000, 'w', 0, NULL)",
    "ask a breaker": "SELECT callgate_admit_v1('openai', 'm', '', 'theirs')",
    "tell a breaker": "SELECT callgate_note_health_v1('{}', '{}', '{}')",
    "open a breaker": "SELECT callgate_set_breaker_v1('openai', 'm', '', '', true, 'me', 'malice')",
    "forget the breakers": "SELECT callgate_forget_breakers_v1(9)",
    "list who waits": "SELECT callgate_waiting_orgs_v1(1)",
    "list the breakers": "SELECT * FROM callgate_breakers_v1()",
    "release who waits": "SELECT callgate_release_waiting_v1()",
    "take links": "SELECT callgate_links_v1('', NULL, NULL, 1, 1, 1, 1)",
    "deliver": "SELECT callgate_deliver_v1('{}', '{}', '{}')",
    "put a call off": "SELECT callgate_defer_call_v1(gen_random_uuid(), 1, '')",
    "tell of a call": "SELECT callgate_tell_later_v1(gen_random_uuid(), 1, 'theirs', '0')",
    "forget whom to tell": "SELECT callgate_has_untold_calls_v1(gen_random_uuid(), 1)",
    "set a budget": "SELECT callgate_set_budget_v1('mine', 'org', 'day', 1000000, 'UTC')",
    "roll budgets": "SELECT callgate_roll_budgets_v1(ARRAY['theirs'], ARRAY['org'])",
    "end rests": "SELECT callgate_clear_due_at_v1('{}', '{}')",
    "create a table": "CREATE TABLE public.mine (x int)",
    "create a function": "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "create a schema": "CREATE SCHEMA mine",
    "replace a function": (
        "CREATE OR REPLACE FUNCTION callgate_tenant_orgs_v1() RETURNS text[] LANGUAGE sql AS 'SELECT NULL::text[]'"
    ),
    "index a table": "CREATE INDEX ON llm_call (org_id)",
    "drop a policy": "DROP POLICY all_orgs ON llm_call",
    "create a policy": f"CREATE POLICY mine ON llm_call TO {CLIENT} USING (true)",
    "disable row security": "ALTER TABLE llm_call DISABLE ROW LEVEL SECURITY",
    "a trigger": "CREATE TRIGGER t BEFORE INSERT ON llm_call EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "run a program": "COPY (SELECT 1) TO PROGRAM 'id'",
    "read a file": "SELECT pg_read_file('postgresql.conf')",
    "import a file": "SELECT lo_import('/etc/passwd')",
    "replication mode": "SET session_replication_role = replica",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_everything_but_its_own_is_refused(
    attacker: Connection, owner: PostgresSession, what: str
) -> None:
    """Postgres says no, and nothing has changed."""
    before = books(owner)

    state = sqlstate_of(attacker, FORBIDDEN[what])

    assert state == DENIED
    assert books(owner) == before


def test_a_statement_of_others_is_not_ended(attacker: Connection, owner: PostgresSession) -> None:
    """It may neither cancel nor terminate what other logins run."""
    ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'callgate'"
    owner.rows("SELECT 1", {})

    assert sqlstate_of(attacker, ends) == DENIED


# The functions that write.


def test_it_submits_for_nobody_else(
    session: PostgresSession, owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """One foreign row, and nothing of the batch is stored."""
    before = books(owner)
    batch = [a_submission("a", org_id="mine"), their("b"), a_submission("c", org_id="mine")]

    with pytest.raises(ConfigurationError, match="may not act for organisation theirs"):
        PostgresLedger(session).submit(batch)

    assert books(owner) == before


def call_of_theirs() -> dict[str, Any]:
    """Whose id anybody can compute who guesses the prompt."""
    there = their(THEIR_PROMPT)
    return {"call_id": there.call_id, "input_hash": there.input_hash}


def no_call_of_theirs() -> dict[str, Any]:
    """The same for a prompt nobody asked."""
    absent = their("what nobody asked")
    return {"call_id": absent.call_id, "input_hash": absent.input_hash}


@pytest.mark.parametrize("options", [{}, {"link": LINK}, {"force": True, "inherit_links": True}])
@pytest.mark.parametrize("key", [None, f"key of {THEIR_PROMPT}"])
def test_it_neither_joins_nor_detects_a_call_of_others(
    session: PostgresSession,
    owner: PostgresSession,
    ledger: LedgerUnderTest,
    options: dict[str, Any],
    key: str | None,
) -> None:
    """Its own organisation with the id of their call: the same answer whether they have that call or not."""
    before = books(owner)
    client = PostgresLedger(session)

    def ask(identity: dict[str, Any]) -> tuple[SubmitOutcome, int, CallState]:
        forged = replace(
            a_submission("x", org_id="mine", idempotency_key=key), **identity, **options
        )
        (answer,) = client.submit([forged])
        return answer.outcome, answer.key.generation, answer.state

    present, absent = ask(call_of_theirs()), ask(no_call_of_theirs())

    assert present == absent == (SubmitOutcome.UNSTORABLE, 0, CallState.REJECTED)
    assert books(owner) == before


def test_idempotency_keys_of_others_do_not_answer(owner: PostgresSession) -> None:
    """A key they used is as good as new."""
    new = a_submission("q", org_id="third", idempotency_key=f"key of {THEIR_PROMPT}")

    with a_client(owner, "third") as url, closing(PostgresSession(url)) as session:
        (answer,) = PostgresLedger(session).submit([new])

    assert answer.outcome is SubmitOutcome.CREATED


def test_a_submission_of_others_is_not_replaced(
    session: PostgresSession, owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """Its id does not open it: what they want to be told stays as it is."""
    (submission_id,) = (
        row.submission_id
        for row in owner.rows(
            "SELECT submission_id FROM submission WHERE org_id = 'theirs' LIMIT 1", {}
        )
    )
    before = books(owner)
    forged = a_submission("q", org_id="mine", submission_id=submission_id, link="{}")

    (answer,) = PostgresLedger(session).submit([forged])

    assert answer.outcome is SubmitOutcome.UNSTORABLE
    assert books(owner) == before


ARRAYS = {
    "no organisation": "{}",
    "a null": "{NULL}",
    "two dimensions": "{{mine}}",
    "counted from zero": "[0:1]={mine,theirs}",
    "counted from two": "[2:2]={mine}",
}


@pytest.mark.parametrize("shape", ARRAYS)
def test_odd_arrays_are_refused(
    attacker: Connection, owner: PostgresSession, ledger: LedgerUnderTest, shape: str
) -> None:
    """The organisation that is checked is the one that is stored."""
    row = their("q")
    before = books(owner)

    state = sqlstate_of(
        attacker,
        f"SELECT callgate_submit_v1(ARRAY['{uuid4()}']::uuid[], '{ARRAYS[shape]}', ARRAY['{row.call_id}']::uuid[],"
        f" ARRAY['\\x{row.input_hash.hex()}'::bytea], '{{t}}', '{{p}}', '{{m}}', '{{1}}', ARRAY['x'::bytea],"
        " '{NULL}', '{NULL}', '{f}', '{f}')",
    )

    assert state in (DENIED, "22000")
    assert books(owner) == before


def test_it_cancels_nothing_of_others_and_waits_for_nothing(
    session: PostgresSession, owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """Their calls are neither ended nor locked: one that is locked, and one that is not there, answer alike."""
    keys = [view.key for view in ledger.operations.calls(CallFilter(org_id="theirs"), limit=1_000)]
    before = books(owner)

    with owner.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT 1 FROM llm_call FOR UPDATE")
        ended = PostgresOperations(session).end(keys, code="cancelled", message="")
        connection.exec_driver_sql("ROLLBACK")

    assert len(keys) == 204
    assert ended == []
    assert books(owner) == before


def test_it_discards_no_dead_letter_of_its_own(
    owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """What is dead is an operator's to decide; what waits is its own to cancel."""
    ledger.operations.set_budget("fourth", ORG_SCOPE, Window.DAY, 500)
    dead, queued = ledger.submit(*(a_submission(c, org_id="fourth") for c in "ab"))
    kill(ledger, dead.key)
    keys = [dead.key, queued.key]

    with a_client(owner, "fourth") as url, closing(PostgresSession(url)) as session:
        ended = PostgresOperations(session).end(keys, code="cancelled", message="")

    assert ended == [queued.key]
    assert ledger.view(dead.key).state is CallState.DEAD


def test_a_reason_is_json(attacker: Connection) -> None:
    """Whoever lists calls reads it."""
    assert sqlstate_of(attacker, "SELECT callgate_end_v1('{}', '{}', 'no json', '{}')") == "22P02"
    assert sqlstate_of(attacker, "SELECT callgate_end_v1('{}', '{}', '{}', '{}')") == ""


def test_no_lock_that_anybody_may_hold_stops_the_upkeep(
    attacker: Connection, owner: PostgresSession
) -> None:
    """Advisory locks ask for no privilege, so nothing of ours waits for one, or takes one that is held for a reason."""
    attacker.exec_driver_sql("SELECT pg_advisory_lock(hashtext('callgate_partitions'))")

    later = month(-5)
    (partitions,) = owner.rows(
        "SELECT * FROM callgate_make_partitions_v1(%(at)s, 1)", {"at": later}
    )
    owner.rows(f"DROP TABLE {partition_of(later)}", {})
    users = owner.rows(
        "SELECT proname FROM pg_proc WHERE proname LIKE 'callgate%%' AND prosrc LIKE '%%advisory%%'",
        {},
    )

    assert partitions.made == 1
    assert users == []


def test_what_a_client_may_execute_is_little(attacker: Connection) -> None:
    """Nothing of callgate's is left to PUBLIC, what runs with the owner's rights finds no object of a caller's."""
    functions = attacker.exec_driver_sql(
        "SELECT proname, has_function_privilege(oid, 'EXECUTE'), prosecdef, proconfig,"
        " has_function_privilege('pg_monitor', oid, 'EXECUTE')"
        "  FROM pg_proc WHERE proname LIKE 'callgate%%'"
    ).all()

    mine = {name for name, may, *_ in functions if may}
    assert mine == {
        "callgate_submit_v1", "callgate_end_v1", "callgate_tenant_orgs_v1", "callgate_read_v1",
        "callgate_calls_v1", "callgate_dead_groups_v1", "callgate_costs_v1", "callgate_budgets_v1",
        "callgate_link_failures_v1",
    }  # fmt: skip
    assert [name for name, _, _, _, is_public in functions if is_public] == []
    for name, _, is_definer, settings, _ in functions:
        told = {"search_path=public, pg_temp", "client_min_messages=notice"}
        assert not is_definer or told <= set(settings), name
    assert len(functions) > 10


def test_a_client_that_is_also_the_dashboard_reads_no_more_bodies(
    owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """What the dashboard shows of everybody is no answer to what a client asks for, for that may be prompts."""
    (theirs,) = [
        view.key
        for view in PostgresOperations(owner).calls(CallFilter(org_id="theirs"), limit=1000)
        if view.state is CallState.SUCCEEDED
    ]
    with (
        a_login(owner_url(owner), CLIENT, DASHBOARD) as url,
        closing(PostgresSession(url)) as session,
    ):
        assert list(PostgresLedger(session).read([theirs], Bodies.BOTH)) == [None]
        assert PostgresOperations(session).calls(CallFilter(), limit=1000) == []
        assert PostgresOperations(session).snapshot().budgets
