"""What each database role may do: exactly what its process needs. Real work under them: `acceptance/test_secrets`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from unittest.mock import ANY

import pytest
from sqlalchemy import Engine

from callgate.adapters.postgres.leases import PostgresLeases
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.retention import PostgresRetention
from callgate.adapters.postgres.roles import (
    BODY_READER,
    CLIENT,
    DASHBOARD,
    MAY_EXECUTE,
    MAY_SELECT,
    MAY_SELECT_EXCEPT,
    OPERATOR,
    ROLES,
    WORKER,
)
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tables import metadata
from callgate.domain.call_pages import PageOf
from callgate.domain.calls import Bodies, CallState
from callgate.domain.errors import ConfigurationError, NotPermitted
from callgate.domain.ledger import Reserved
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By, CallFilter, EndReason, UnprocessableMessage
from callgate.domain.retention import BodyAges
from callgate.domain.unknown import SettleByHand, UnknownFilter
from tests.support.ledger_under_test import (
    ORG,
    REAPER,
    LedgerUnderTest,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
    open_postgres,
)
from tests.support.logins import a_login

PRIVILEGES = (
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "TRUNCATE",
    "REFERENCES",
    "TRIGGER",
    "MAINTAIN",
)


@pytest.fixture
def ledger(postgres_engine: Engine) -> Iterator[LedgerUnderTest]:
    """The owner's ledger, with a call that has succeeded and an unprocessable message."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url)) as session:
        ledger = open_postgres(session)
        ledger.succeeded()
        ledger.operations.keep_unprocessable(UnprocessableMessage("q", "why", b"raw"))
        yield ledger


@pytest.fixture
def owner_url(postgres_engine: Engine) -> str:
    """The owner's URL."""
    return postgres_engine.url.render_as_string(hide_password=False)


def allowed(engine: Engine, role: str) -> set[tuple[str, str]]:
    """What a role may do with whole tables and views, by the catalogue."""
    with engine.connect() as connection:
        relations = connection.exec_driver_sql(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p', 'v', 'S')"
        ).scalars()
        return {
            (name, privilege)
            for name in relations
            for privilege in PRIVILEGES
            if connection.exec_driver_sql(
                "SELECT has_table_privilege(%s, %s, %s)", (role, name, privilege)
            ).scalar()
        }


def test_the_roles_write_no_table(postgres_engine: Engine) -> None:
    """What changes the ledger is a function, and so is what reads it, but for the dashboard."""
    assert {role: allowed(postgres_engine, role) for role in ROLES} == {
        **{role: set() for role in ROLES},
        DASHBOARD: {(t, "SELECT") for t in MAY_SELECT},
    }
    assert allowed(postgres_engine, "pg_monitor") == set()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_executes_what_is_listed_and_nothing_else(
    postgres_engine: Engine, role: str
) -> None:
    """A function that nobody listed is nobody's; none is left to PUBLIC."""
    with postgres_engine.connect() as connection:
        functions = connection.exec_driver_sql(
            "SELECT proname, has_function_privilege(%s, oid, 'EXECUTE') AS may,"
            " has_function_privilege('pg_monitor', oid, 'EXECUTE') AS is_public"
            " FROM pg_proc WHERE proname LIKE 'callgate%%'",
            (role,),
        ).all()

    assert {f.proname for f in functions if f.may} == {
        name for name, roles in MAY_EXECUTE.items() if role in roles
    }
    assert [f.proname for f in functions if f.is_public] == []


def test_roles_are_no_logins_and_have_no_powers(postgres_engine: Engine) -> None:
    """They carry grants and nothing else."""
    with postgres_engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT rolname, rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls"
            " OR rolreplication FROM pg_roles WHERE rolname LIKE 'callgate\\_%%'"
        ).all()

    assert dict(map(tuple, rows)) == dict.fromkeys(ROLES, False)


def test_a_worker_does_its_work_and_no_more(ledger: LedgerUnderTest, owner_url: str) -> None:
    """It claims, records, settles, delivers and keeps unprocessable messages. It submits nothing, sets nothing."""
    (queued,) = ledger.submit(a_submission("another"))
    with a_login(owner_url, WORKER) as url, closing(PostgresSession(url)) as session:
        worker, operations = PostgresLedger(session), PostgresOperations(session)

        (claimed,) = worker.reserve([a_reserve(queued.key)])
        assert isinstance(claimed, Reserved)
        worker.record([an_answer(claimed.ref)])
        worker.settle([a_success(claimed.ref)])
        worker.take_due(limit=10, reaper=REAPER)
        worker.keep_link_outcomes([])
        leases = PostgresLeases(session)
        leases.renew("w", 10)
        leases.expire("w")
        leases.release("w")
        retention = PostgresRetention(session)
        retention.purge(BodyAges(), limit=1, dry_run=False)
        retention.make_partitions(months=1)
        retention.archive_month(600)
        operations.keep_unprocessable(UnprocessableMessage("q", "why", b"raw"))
        (view,) = worker.read([queued.key], Bodies.BOTH)

        assert view is not None
        assert view.state is CallState.SUCCEEDED
        for forbidden in (
            lambda: worker.submit([a_submission("its own")]),
            lambda: operations.end([queued.key], code=EndReason.CANCELLED, message=""),
            lambda: operations.unprocessable_messages(limit=1),
            lambda: operations.budgets(ORG),
            lambda: session.rows("SELECT 1 FROM llm_call", {}),
            lambda: session.rows("UPDATE budget SET limit_nano_usd = 1", {}),
            lambda: session.rows("UPDATE llm_call SET state = 'queued'", {}),
            lambda: session.rows("DELETE FROM ai_call_log", {}),
            lambda: session.rows("TRUNCATE ai_call_log", {}),
            lambda: session.rows("DROP TABLE ai_call_log", {}),
            lambda: session.rows("CREATE TABLE mine (x int)", {}),
        ):
            with pytest.raises(ConfigurationError, match="InsufficientPrivilege"):
                forbidden()


@pytest.mark.parametrize(
    ("table", "column"), [(t, c) for t, columns in MAY_SELECT_EXCEPT.items() for c in columns]
)
def test_a_dashboard_reads_everything_but_bodies(
    ledger: LedgerUnderTest, owner_url: str, table: str, column: str
) -> None:
    """Not by name, not by *, not as a row, not by COPY; each other column, and all organisations."""
    others = ", ".join(f'"{c.name}"' for c in metadata.tables[table].columns if c.name != column)
    with a_login(owner_url, DASHBOARD) as url, closing(PostgresSession(url)) as session:
        assert session.rows(f"SELECT {others} FROM {table}", {})  # noqa: S608
        assert session.rows("SELECT * FROM budget, dead_letter", {})
        for words in (column, "*", table, f"length({column}::text)", f"{column} IS NULL"):
            with pytest.raises(ConfigurationError, match="InsufficientPrivilege"):
                session.rows(f"SELECT {words} FROM {table}", {})  # noqa: S608
        with pytest.raises(ConfigurationError, match="InsufficientPrivilege"):
            session.rows(f"DELETE FROM {table}", {})  # noqa: S608


def test_a_dashboard_reports_what_the_owner_reports(
    ledger: LedgerUnderTest, owner_url: str
) -> None:
    """Costs and budgets of all organisations, and the audit: a login that watches need not own."""
    with a_login(owner_url, DASHBOARD) as url, closing(PostgresSession(url)) as session:
        operations = PostgresOperations(session)

        assert operations.costs() == ledger.operations.costs() != []
        assert operations.budgets() == ledger.operations.budgets() != []
        assert replace(operations.snapshot(), at=ANY) == ledger.operations.snapshot()
        ledger.operations.pause(PauseKey(org_id=ORG), by=By("ann", "invoice 7"))
        assert operations.pauses() == ledger.operations.pauses() != []
        assert operations.breakers() == ledger.operations.breakers() != []
        assert operations.actions(limit=9) == ledger.operations.actions(limit=9) != []


def test_a_dashboard_finds_calls_and_shows_no_body(ledger: LedgerUnderTest, owner_url: str) -> None:
    """As the owner finds them, with what happened to each. Bodies are the body reader's, and only it is logged."""
    ref, by = ledger.dead("dead"), By("ann", "ticket 7")
    ledger.operations.cancel(ledger.queued("another"), by=by)
    which, owner = CallFilter(state=CallState.DEAD), ledger.operations
    with a_login(owner_url, DASHBOARD) as url, closing(PostgresSession(url)) as session:
        operations = PostgresOperations(session)

        assert operations.call_page(which, PageOf()) == owner.call_page(which, PageOf())
        assert operations.count_calls(CallFilter()).calls == 3
        assert operations.call_history(ref.key) == owner.call_history(ref.key)
        assert operations.views([ref.key]) == owner.views([ref.key])
    logged = owner.actions(limit=9)
    for role in set(ROLES) - {BODY_READER}:
        with (
            a_login(owner_url, role) as url,
            closing(PostgresSession(url)) as session,
            pytest.raises(ConfigurationError, match="InsufficientPrivilege"),
        ):
            PostgresOperations(session).show_body(ref.key, None, by=by)
    for role in set(ROLES) - {OPERATOR}:
        with (
            a_login(owner_url, role) as url,
            closing(PostgresSession(url)) as session,
            pytest.raises(ConfigurationError, match="InsufficientPrivilege"),
        ):
            PostgresOperations(session).cancel(ref.key, by=by)
    assert owner.actions(limit=9) == logged


def test_a_reader_of_bodies_is_one_of_the_dashboard(
    ledger: LedgerUnderTest, owner_url: str
) -> None:
    """Alone the role shows nothing: it does not say whose bodies."""
    ref, by = ledger.dead("dead"), By("ann", "ticket 7")
    for roles, is_shown in (((BODY_READER,), False), ((BODY_READER, DASHBOARD), True)):
        with a_login(owner_url, *roles) as url, closing(PostgresSession(url)) as session:
            body = PostgresOperations(session).show_body(ref.key, None, by=by)
            assert (body is not None) == is_shown


def test_a_dashboard_sees_unknown_bills_and_settles_none(
    ledger: LedgerUnderTest, owner_url: str
) -> None:
    """Nor does any role but the operator's: it moves money by hand, and opens breakers."""
    ref = ledger.lost("lost")
    settle, by = SettleByHand(ref.attempt_id, 100, 0), By("ann", "invoice 7")
    with a_login(owner_url, DASHBOARD) as url, closing(PostgresSession(url)) as session:
        operations = PostgresOperations(session)
        assert operations.unknown_bills(UnknownFilter(), limit=9) == (
            ledger.operations.unknown_bills(UnknownFilter(), limit=9)
        )
        assert operations.unknown_days(UnknownFilter()) == (
            ledger.operations.unknown_days(UnknownFilter())
        )
    for role in set(ROLES) - {OPERATOR}:
        with a_login(owner_url, role) as url, closing(PostgresSession(url)) as session:
            operations = PostgresOperations(session)
            for forbidden in (
                lambda: operations.settle_by_hand([settle], by=by),  # noqa: B023
                lambda: operations.set_breaker("p", "m", "", is_open=True, by=by),  # noqa: B023
                lambda: operations.pause(PauseKey(), by=by),  # noqa: B023
                lambda: operations.resume(PauseKey(), by=by),  # noqa: B023
            ):
                with pytest.raises(ConfigurationError, match="InsufficientPrivilege"):
                    forbidden()
    assert [b.attempt_id for b in ledger.operations.unknown_bills(UnknownFilter(), limit=9)] == [
        ref.attempt_id
    ]


def test_a_refusal_names_logins_that_are_not_refused(
    ledger: LedgerUnderTest, owner_url: str
) -> None:
    """It is followed: with a member of the role that it names the same statement passes."""

    def purge(url: str) -> None:
        with closing(PostgresSession(url)) as session:
            PostgresRetention(session).purge(BodyAges(), limit=1, dry_run=True)

    with a_login(owner_url, CLIENT) as client, a_login(owner_url, WORKER) as worker:
        with pytest.raises(NotPermitted, match=f"owns the tables, or a member of {WORKER}$"):
            purge(client)
        purge(worker)
        purge(owner_url)


def test_a_refusal_in_our_own_words_gets_no_other_remedy(
    ledger: LedgerUnderTest, owner_url: str
) -> None:
    """A login that acts for another organisation is the right login; it lacks a grant of `callgate tenants`."""
    with (
        a_login(owner_url, CLIENT) as url,
        closing(PostgresSession(url)) as session,
        pytest.raises(NotPermitted, match=f"may not act for organisation {ORG}$"),
    ):
        PostgresLedger(session).submit([a_submission("mine")])


@pytest.mark.parametrize("role", [None, *ROLES])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE operator_action SET reason = 'another'",
        "DELETE FROM operator_action",
        "TRUNCATE operator_action",
    ],
)
def test_what_operators_did_is_never_rewritten(
    ledger: LedgerUnderTest, owner_url: str, role: str | None, statement: str
) -> None:
    """Not by the owner either."""
    ledger.operations.set_breaker("p", "m", "", is_open=True, by=By("ann", "they are down"))
    before = ledger.operations.actions(limit=9)
    login = a_login(owner_url, role) if role else nullcontext(owner_url)
    refused = pytest.raises(ConfigurationError, match=r"append-only|InsufficientPrivilege")
    with login as url, closing(PostgresSession(url)) as session, refused:
        session.rows(statement, {})

    assert ledger.operations.actions(limit=9) == before != []
