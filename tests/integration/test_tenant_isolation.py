# ruff: noqa: S608 - every statement is ours, or an attack of ours
"""What a hostile client reads: its own organisation, and nothing of others."""

from __future__ import annotations

from contextlib import closing

import pytest
from sqlalchemy import Connection

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, WORKER
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tenants import PostgresTenants
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.call_pages import PageOf
from callgate.domain.calls import Bodies, CallState
from callgate.domain.delivery import LinkOutcome
from callgate.domain.errors import ConfigurationError
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.reports import CallFilter, EndReason
from callgate.domain.tenants import Tenant
from tests.support.hostile_client import (
    DENIED,
    attacker,
    ledger,
    owner,
    session,
    sqlstate_of,
    url,
)
from tests.support.ledger_under_test import (
    LINK,
    RATE_LIMITED,
    LedgerUnderTest,
    a_submission,
)
from tests.support.logins import a_client, a_login, name_of, owner_url

__all__ = ["attacker", "ledger", "owner", "session", "url"]


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
        assert [(c.org_id, c.used.collapsed) for c in operations.costs()] == [("ours", 1)]
        assert operations.dead_groups(CallFilter()) == []
        assert operations.end([view.key], code=EndReason.CANCELLED, message="") == [view.key]
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
SELECT (SELECT count(*) FROM callgate_calls_v1({org}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 10))
     + (SELECT count(*) FROM callgate_dead_groups_v1({org}, NULL, NULL, NULL, NULL, NULL))
     + (SELECT count(*) FROM callgate_costs_v1({org})) + (SELECT count(*) FROM callgate_budgets_v1({org}))
     + (SELECT count(*) FROM callgate_spending_v1(ARRAY[coalesce({org}, 'theirs')], 30, 100))
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
    ledger.ledger.keep_link_outcomes(
        [LinkOutcome(link.submission_id, "refused", 3_600.0) for link in failed]
    )
    assert any(ledger.operations.link_failures(view.key, limit=10) for view in theirs)
    call_filter = CallFilter(call_ids=tuple(view.key.call_id for view in theirs))

    views = PostgresLedger(session).read([view.key for view in theirs], Bodies.BOTH)

    their_failures = [
        PostgresOperations(session).link_failures(view.key, limit=10) for view in theirs
    ]

    assert their_failures == [[]] * len(theirs)
    assert set(views) == {None}
    mine = PostgresOperations(session)
    assert mine.calls(call_filter, limit=10) == []
    assert set(mine.views([view.key for view in theirs])) == {None}
    for view in theirs:
        history = mine.call_history(view.key)
        assert (history.attempts, history.generations, history.submissions.total) == ((), (), 0)


@pytest.mark.parametrize(
    "which",
    [
        CallFilter(),
        CallFilter(org_id="theirs"),
        *(CallFilter(state=state) for state in CallState),
        CallFilter(reason="cancelled"),
        CallFilter(error_fingerprint=RATE_LIMITED.fingerprint("openai")),
        CallFilter(trace_id="their-trace"),
        CallFilter(kind="first"),
    ],
    ids=str,
)
def test_no_search_finds_or_counts_calls_of_others(
    session: PostgresSession, ledger: LedgerUnderTest, which: CallFilter
) -> None:
    """Whatever index it walks along."""
    operations = PostgresOperations(session)

    page = operations.call_page(which, PageOf())

    assert {view.org_id for view in page.views} <= {"mine"}
    assert operations.count_calls(which).calls == len(page.views)
    assert (page.looked_to, page.older) == (None, None)
